// A lock in shared memory whose holder may die at any instruction.
//
// The word names the process slot that holds it; a slot is alive while its
// lock byte is held, and the kernel drops that byte with the process. Waiters
// poll liveness every few milliseconds and take the lock from a dead holder.
// Threads of one process share its slot: to them a held word is just held.
#pragma once

#include "segment/format.hpp"

namespace ndarena::segment {

// Who asks, and how it learns who is alive.
class slot_authority {
public:
    virtual bool is_alive(std::uint32_t slot) const noexcept = 0;
    virtual ~slot_authority() = default;
};

enum class lock_outcome : std::uint8_t {
    acquired,
    inherited,  // taken from a dead holder: its undo log must be played back
    timed_out,  // or given up because of a signal
};

class slot_lock {
public:
    slot_lock(std::atomic<std::uint32_t>* word, const slot_authority* authority) noexcept
        : word_(word), authority_(authority) {}

    static constexpr unsigned default_timeout_ms = 10000;

    lock_outcome lock(std::uint32_t owner_word, unsigned timeout_ms = default_timeout_ms) noexcept {
        std::uint32_t expected = 0;
        if (word_->compare_exchange_strong(expected, owner_word, std::memory_order_acquire,
                                           std::memory_order_relaxed)) {
            return lock_outcome::acquired;
        }
        return lock_slow(owner_word, timeout_ms);
    }
    void unlock() noexcept {
        if ((word_->exchange(0, std::memory_order_release) & waiters_bit) != 0) {
            wake();
        }
    }

    // To be called once by whoever has just claimed `slot`: true if the word
    // names that slot, that is, if a former owner of the slot died holding it.
    // Then this process holds the lock now and must recover and unlock it.
    bool take_over_own(std::uint32_t slot, std::uint32_t owner_word) noexcept;

    static std::uint32_t make_word(std::uint32_t slot, std::uint32_t incarnation) noexcept {
        return (slot + 1) | ((incarnation & incarnation_mask) << slot_bits);
    }
    static std::uint32_t slot_of(std::uint32_t word) noexcept { return (word & slot_mask) - 1; }

private:
    static constexpr unsigned slot_bits = 12;
    static constexpr std::uint32_t slot_mask = (1U << slot_bits) - 1;
    static constexpr std::uint32_t incarnation_mask = (1U << 19) - 1;
    static constexpr std::uint32_t waiters_bit = 1U << 31;
    static_assert(max_slots < slot_mask);

    lock_outcome lock_slow(std::uint32_t owner_word, unsigned timeout_ms) noexcept;
    void wake() noexcept;

    std::atomic<std::uint32_t>* word_;
    const slot_authority* authority_;
};

}  // namespace ndarena::segment
