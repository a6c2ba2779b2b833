#include "segment/segment.hpp"

namespace ndarena::segment {

lock_outcome slot_lock::lock_slow(std::uint32_t owner_word, unsigned timeout_ms) noexcept {
    static constexpr int spins = 64;
    static constexpr unsigned poll_ms = 3;
    for (int i = 0; i < spins; ++i) {
        std::uint32_t expected = 0;
        if (word_->load(std::memory_order_relaxed) == 0 &&
            word_->compare_exchange_weak(expected, owner_word, std::memory_order_acquire,
                                         std::memory_order_relaxed)) {
            return lock_outcome::acquired;
        }
        platform::cpu_pause();
    }
    const std::uint64_t deadline = platform::monotonic_milliseconds() + timeout_ms;
    std::uint32_t suspect = 0;
    for (;;) {
        std::uint32_t seen = word_->load(std::memory_order_relaxed);
        if (seen == 0) {
            // Others may still sleep: hold it with the waiters bit set.
            if (word_->compare_exchange_weak(seen, owner_word | waiters_bit,
                                             std::memory_order_acquire,
                                             std::memory_order_relaxed)) {
                return lock_outcome::acquired;
            }
            continue;
        }
        if ((seen & waiters_bit) == 0) {
            if (!word_->compare_exchange_weak(seen, seen | waiters_bit, std::memory_order_relaxed,
                                              std::memory_order_relaxed)) {
                continue;
            }
            seen |= waiters_bit;
        }
        // The same word after a sleep: ask whether its holder still lives.
        if (seen == suspect && !authority_->is_alive(slot_of(seen))) {
            if (word_->compare_exchange_strong(seen, owner_word | waiters_bit,
                                               std::memory_order_acquire,
                                               std::memory_order_relaxed)) {
                return lock_outcome::inherited;
            }
            continue;
        }
        suspect = seen;
        if (platform::monotonic_milliseconds() >= deadline) {
            return lock_outcome::timed_out;
        }
        if (platform::wait_is_given_up(platform::futex_wait(word_, seen, poll_ms))) {
            return lock_outcome::timed_out;
        }
    }
}

bool slot_lock::take_over_own(std::uint32_t slot, std::uint32_t owner_word) noexcept {
    if constexpr (base::planted(base::bug::no_take_over)) {
        return false;
    }
    std::uint32_t seen = word_->load(std::memory_order_relaxed);
    while (seen != 0 && slot_of(seen) == slot) {
        if (word_->compare_exchange_weak(seen, owner_word | waiters_bit, std::memory_order_acquire,
                                         std::memory_order_relaxed)) {
            return true;
        }
    }
    return false;
}

void slot_lock::wake() noexcept { platform::futex_wake_one(word_); }

}  // namespace ndarena::segment
