// A stateful allocator that checks what it is told, and misbehaves on order.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>

enum class mood { well, throws_bad_alloc, throws_int, gives_null, gives_crooked };

// What all copies of one allocator share. No lock: calls are to come one at a time.
struct ledger {
    std::map<void*, std::size_t> live;  // bytes
    long n_allocated = 0;
    long n_wrong = 0;  // given back twice, never given, or with another size
    int inside = 0;    // calls at this moment
    mood now = mood::well;
    std::size_t most = std::size_t{1} << 40;  // bytes at once
};

class visit {
public:
    explicit visit(ledger& l) : ledger_(l) { ledger_.n_wrong += ledger_.inside++ == 0 ? 0 : 1; }
    ~visit() { --ledger_.inside; }
    visit(const visit&) = delete;
    visit& operator=(const visit&) = delete;

private:
    ledger& ledger_;
};

inline void* take(ledger& l, std::size_t nbytes, std::size_t alignment = 16) {
    const visit here(l);
    if (l.now == mood::throws_bad_alloc || nbytes > l.most) {
        throw std::bad_alloc();
    }
    if (l.now == mood::throws_int) {
        throw 42;
    }
    if (l.now == mood::gives_null) {
        return nullptr;
    }
    const std::size_t whole = (nbytes + 8 + alignment - 1) / alignment * alignment;
    char* p = static_cast<char*>(std::aligned_alloc(alignment, whole));
    if (p == nullptr) {
        throw std::bad_alloc();
    }
    p += l.now == mood::gives_crooked ? 8 : 0;
    l.live[p] = nbytes;
    ++l.n_allocated;
    return p;
}

inline void give_back(ledger& l, void* p, std::size_t nbytes) {
    const visit here(l);
    const auto found = l.live.find(p);
    if (found == l.live.end() || found->second != nbytes) {
        ++l.n_wrong;
        return;
    }
    l.live.erase(found);
    std::free(static_cast<char*>(p) - (l.now == mood::gives_crooked ? 8 : 0));
}

// No default constructor, no more members than C++11 asks for.
template <class T>
class counting_allocator {
public:
    using value_type = T;

    explicit counting_allocator(std::shared_ptr<ledger> l) : ledger_(std::move(l)) {}
    template <class U>
    counting_allocator(const counting_allocator<U>& other) : ledger_(other.ledger_) {}

    T* allocate(std::size_t n) { return static_cast<T*>(take(*ledger_, n * sizeof(T))); }
    void deallocate(T* p, std::size_t n) { give_back(*ledger_, p, n * sizeof(T)); }

    template <class U>
    friend bool operator==(const counting_allocator& a, const counting_allocator<U>& b) {
        return a.ledger_ == b.ledger_;
    }
    template <class U>
    friend bool operator!=(const counting_allocator& a, const counting_allocator<U>& b) {
        return !(a == b);
    }

    std::shared_ptr<ledger> ledger_;
};

// Cannot be moved without an accident, whose kind is `Error`.
template <class T, class Error>
struct unlucky_allocator {
    using value_type = T;
    template <class U>
    struct rebind {
        using other = unlucky_allocator<U, Error>;
    };
    unlucky_allocator() = default;
    template <class U>
    explicit unlucky_allocator(const unlucky_allocator<U, Error>& /*other*/) {
        throw Error();
    }
    T* allocate(std::size_t /*n*/) { return nullptr; }
    void deallocate(T* /*p*/, std::size_t /*n*/) {}
};

struct accident : std::runtime_error {
    accident() : std::runtime_error("dropped while moving") {}
};
