// Waiting, clocks, who and where we are.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

namespace ndarena::platform {

// Sleeps while `*word == expected`, at most `milliseconds`, across processes.
// True if a signal cut it short.
bool futex_wait(std::atomic<std::uint32_t>* word, std::uint32_t expected,
                unsigned milliseconds) noexcept;
void futex_wake_one(std::atomic<std::uint32_t>* word) noexcept;

inline void cpu_pause() noexcept {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    std::atomic_signal_fence(std::memory_order_seq_cst);
#endif
}

// What to ask between the sleeps of a wait for another process; `cut_short`
// says that a signal ended the last one. True gives up, as after the longest
// wait. None (the beginning): wait on.
using interrupt_hook = bool (*)(bool cut_short) noexcept;
void set_interrupt_hook(interrupt_hook hook) noexcept;
bool wait_is_given_up(bool cut_short) noexcept;

// Milliseconds of CLOCK_MONOTONIC at timer-tick resolution; the same clock in
// every process of one boot.
std::uint64_t monotonic_milliseconds() noexcept;
std::uint64_t unix_time() noexcept;
std::uint32_t process_id() noexcept;
bool process_exists(std::uint32_t pid) noexcept;

// Where a mapped file lives at this moment: while all of it is unchanged, its
// volatile metadata was written by processes of this boot and can be trusted
// after their death. Any difference (reboot, copy, remount) means it cannot.
struct instance_id {
    std::array<std::uint8_t, 16> boot{};
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
    std::uint64_t generation = 0;  // inode generation, 0 where there is none
    std::uint64_t mount = 0;       // unique mount id, 0 where there is none
    // All of it is known and the same. Plain mount ids are reused, so without a
    // unique one (Linux before 6.8) nothing is certain.
    bool is_certainly(const instance_id& o) const noexcept;
};
instance_id instance_of(int fd) noexcept;

// Bytes of memory this process may use: the smaller of the machine's and the
// memory cgroup's limit.
std::uint64_t memory_limit() noexcept;

// Sleeps; true if a signal cut it short.
bool sleep_milliseconds(unsigned milliseconds) noexcept;

// True in the process that last called arm_fork_guard, false in children that
// were made without running the atfork handlers (clone, _Fork, vfork). Asked at
// every request, so inline: the byte that tells lies in a page of its own.
extern std::atomic<const std::atomic<unsigned char>*> fork_guard;
inline bool fork_guard_intact() noexcept {
    return fork_guard.load(std::memory_order_relaxed)->load(std::memory_order_relaxed) != 0;
}
void arm_fork_guard() noexcept;

}  // namespace ndarena::platform
