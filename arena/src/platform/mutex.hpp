// Mutual exclusion of the threads of one process; annotated for clang's
// thread-safety analysis. fork children may set it free by `reset`.
#pragma once

#include "base/base.hpp"

#include <atomic>
#include <cstdint>

#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
#endif

namespace ndarena::platform {

class NDARENA_CAPABILITY("mutex") mutex {
public:
    void lock() noexcept NDARENA_ACQUIRE() {
        if (is_single_threaded()) {
            word_.store(1, std::memory_order_relaxed);
            std::atomic_signal_fence(std::memory_order_seq_cst);
            return;
        }
        std::uint32_t expected = 0;
        if (!word_.compare_exchange_strong(expected, 1, std::memory_order_acquire,
                                           std::memory_order_relaxed)) {
            lock_slow();
        }
    }
    bool try_lock() noexcept NDARENA_ATTRIBUTE(try_acquire_capability(true)) {
        std::uint32_t expected = 0;
        return word_.compare_exchange_strong(expected, 1, std::memory_order_acquire,
                                             std::memory_order_relaxed);
    }
    void unlock() noexcept NDARENA_RELEASE() {
        if (is_single_threaded()) {
            word_.store(0, std::memory_order_release);
            return;
        }
        if (word_.exchange(0, std::memory_order_release) == 2) {
            wake();
        }
    }
    // In a fork child whose parent held it across the fork in this thread.
    void reset() noexcept NDARENA_NO_ANALYSIS { word_.store(0, std::memory_order_release); }

private:
    // While there is one thread, which the C library knows, a locked instruction
    // (5 ns, and again to unlock) would exclude nobody. A mutex that is held
    // while that changes is the same word either way.
    static bool is_single_threaded() noexcept {
#if __has_include(<sys/single_threaded.h>)
        return __libc_single_threaded != 0;
#else
        return false;
#endif
    }
    void lock_slow() noexcept;
    void wake() noexcept;
    std::atomic<std::uint32_t> word_{0};  // 0 free, 1 held, 2 held with waiters
};

class NDARENA_SCOPED_CAPABILITY lock_guard {
public:
    explicit lock_guard(mutex& m) noexcept NDARENA_ACQUIRE(m) : mutex_(m) { mutex_.lock(); }
    ~lock_guard() NDARENA_RELEASE() { mutex_.unlock(); }
    lock_guard(const lock_guard&) = delete;
    lock_guard& operator=(const lock_guard&) = delete;

private:
    mutex& mutex_;
};

}  // namespace ndarena::platform
