/// \file
/// An arena for containers: of the standard library, of Boost.Container, of
/// Boost.Interprocess. Needs Boost's headers (Interprocess), which the rest of
/// the library does not.
///
/// \code
/// auto opened = ndarena::arena::scratch("/var/tmp");
/// using doubles = boost::container::vector<double, ndarena::allocator<double>>;
/// doubles v{ndarena::allocator<double>(*opened)};
/// v.resize(1'000'000'000);  // out of core
/// \endcode
///
/// Lifetime: that of the process. Such memory has no name, so it is reclaimed
/// when the process has died, and is not there after a loss of power. For
/// containers that outlive their process: ndarena::pool.
#pragma once

#include <ndarena/arena.hpp>

#include <boost/interprocess/offset_ptr.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <utility>

namespace ndarena {

/// Throws std::bad_alloc when refused. Holds a copy of the arena, so the
/// mapping outlives the containers. Its pointers are relative, so links
/// between pieces of memory of one arena are right in every process.
template <class T>
class allocator {
public:
    using value_type = T;
    using size_type = std::size_t;
    using difference_type = std::ptrdiff_t;
    using pointer = boost::interprocess::offset_ptr<T>;
    using const_pointer = boost::interprocess::offset_ptr<const T>;
    using void_pointer = boost::interprocess::offset_ptr<void>;
    using const_void_pointer = boost::interprocess::offset_ptr<const void>;
    template <class U>
    struct rebind {
        using other = allocator<U>;
    };

    explicit allocator(arena over) noexcept : arena_(std::move(over)) {}
    // Not moved: what a container has been moved from still frees with it.
    allocator(const allocator&) noexcept = default;
    allocator& operator=(const allocator&) noexcept = default;
    ~allocator() = default;
    template <class U>
    allocator(const allocator<U>& other) noexcept : arena_(other.upstream()) {}

    pointer allocate(size_type n) {
        if (n > max_size()) {
            throw std::bad_alloc();
        }
        void* p = arena_.allocate(n * sizeof(T), alignof(T));
        if (p == nullptr) {
            throw std::bad_alloc();
        }
        return pointer(static_cast<T*>(p));
    }
    void deallocate(const pointer& p, size_type) noexcept {
        if (T* address = p.get(); address != nullptr) {
            (void)arena_.deallocate(address);
        }
    }
    size_type max_size() const noexcept {
        return static_cast<size_type>(std::numeric_limits<difference_type>::max()) / sizeof(T);
    }

    /// The arena it allocates from.
    const arena& upstream() const noexcept { return arena_; }

    template <class U>
    bool operator==(const allocator<U>& other) const noexcept {
        return arena_.implementation() == other.upstream().implementation();
    }
    template <class U>
    bool operator!=(const allocator<U>& other) const noexcept {
        return !(*this == other);
    }

private:
    arena arena_;
};

}  // namespace ndarena
