/// \file
/// What `numpy.hpp` remembers of the memory it gave out, and its locks. Not for users.
///
/// Everything here is hidden: extension modules that were compiled with different
/// versions of this header share nothing.
#pragma once

#include <pthread.h>

#include <cstddef>
#include <mutex>
#include <new>
#include <unordered_map>

#pragma GCC visibility push(hidden)
namespace ndarena::numpy_detail {

/// The two locks of one handler, right on both sides of a fork.
///
/// `table` is taken by the thread that forks, so that no child finds it held and what
/// it guards half changed. Whoever holds it calls nobody but the C library's malloc.
///
/// `turn` is held while foreign code runs, which may wait for anything, also for the
/// thread that forks. So that one does not wait for it: the child gets a new one.
class handler_locks {
public:
    std::mutex table;
    std::mutex turn;

    handler_locks() {
        registry& all = everyone();
        const std::lock_guard<std::mutex> guard(all.mutex);
        next_ = all.first;
        if (next_ != nullptr) {
            next_->previous_ = this;
        }
        all.first = this;
    }
    ~handler_locks() {
        registry& all = everyone();
        const std::lock_guard<std::mutex> guard(all.mutex);
        (previous_ != nullptr ? previous_->next_ : all.first) = next_;
        if (next_ != nullptr) {
            next_->previous_ = previous_;
        }
    }
    handler_locks(const handler_locks&) = delete;
    handler_locks& operator=(const handler_locks&) = delete;

private:
    /// All of this module; its own mutex is held across a fork, so that the list stands
    /// still. Never destroyed: arrays are freed until the process has ended.
    struct registry {
        std::mutex mutex;
        handler_locks* first = nullptr;

        registry() {
            if (::pthread_atfork(&before_fork, &in_parent, &in_child) != 0) {
                throw std::bad_alloc();
            }
        }
    };
    static registry& everyone() {
        static auto* all = new registry;
        return *all;
    }
    static void before_fork() noexcept {
        everyone().mutex.lock();
        for (handler_locks* l = everyone().first; l != nullptr; l = l->next_) {
            l->table.lock();
        }
    }
    static void in_parent() noexcept {
        for (handler_locks* l = everyone().first; l != nullptr; l = l->next_) {
            l->table.unlock();
        }
        everyone().mutex.unlock();
    }
    static void in_child() noexcept {
        for (handler_locks* l = everyone().first; l != nullptr; l = l->next_) {
            l->table.unlock();
            new (&l->turn) std::mutex;
        }
        everyone().mutex.unlock();
    }

    handler_locks* previous_ = nullptr;
    handler_locks* next_ = nullptr;
};

/// How many bytes every address was given out with. NumPy's free does not tell it
/// reliably: an array that `np.fromfile` made empty is freed with another size.
class size_table {
public:
    /// False if there is no memory to remember it.
    bool insert(void* p, std::size_t nbytes) noexcept {
        const std::lock_guard<std::mutex> guard(locks_.table);
        try {
            sizes_[p] = nbytes;
        } catch (...) {
            return false;
        }
        return true;
    }
    /// 0 if it is unknown.
    std::size_t find(void* p) noexcept {
        const std::lock_guard<std::mutex> guard(locks_.table);
        const auto found = sizes_.find(p);
        return found == sizes_.end() ? 0 : found->second;
    }
    /// The same, and it is forgotten.
    std::size_t take(void* p) noexcept {
        const std::lock_guard<std::mutex> guard(locks_.table);
        const auto found = sizes_.find(p);
        if (found == sizes_.end()) {
            return 0;
        }
        const std::size_t nbytes = found->second;
        sizes_.erase(found);
        return nbytes;
    }
    std::mutex& turn() noexcept { return locks_.turn; }

private:
    handler_locks locks_;
    std::unordered_map<void*, std::size_t> sizes_;
};

}  // namespace ndarena::numpy_detail
#pragma GCC visibility pop
