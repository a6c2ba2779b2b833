// A mutex that a fork never leaves locked: the thread that forks takes all of
// them first. Whoever holds one calls nobody, so that they need no order.
#pragma once

#include "platform/platform.hpp"

namespace ndarena::resources {

class NDARENA_CAPABILITY("mutex") fork_mutex {
public:
    fork_mutex() noexcept;
    ~fork_mutex();
    fork_mutex(const fork_mutex&) = delete;
    fork_mutex& operator=(const fork_mutex&) = delete;

    void lock() noexcept NDARENA_ACQUIRE() { word_.lock(); }
    void unlock() noexcept NDARENA_RELEASE() { word_.unlock(); }

private:
    struct registry;
    static registry& all() noexcept;

    platform::mutex word_;
    fork_mutex* previous_ = nullptr;
    fork_mutex* next_ = nullptr;
};

class NDARENA_SCOPED_CAPABILITY fork_guard {
public:
    explicit fork_guard(fork_mutex& m) noexcept NDARENA_ACQUIRE(m) : mutex_(m) { m.lock(); }
    ~fork_guard() NDARENA_RELEASE() { mutex_.unlock(); }
    fork_guard(const fork_guard&) = delete;
    fork_guard& operator=(const fork_guard&) = delete;

private:
    fork_mutex& mutex_;
};

}  // namespace ndarena::resources
