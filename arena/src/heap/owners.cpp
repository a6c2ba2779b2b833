// What dead processes held.
#include "heap/heap.hpp"

namespace ndarena::heap {

// Clears the row of a slot whose process is gone, block by block; each is an
// operation of its own, so whoever continues after a death finds less to do.
// The caller owns the slot's lock byte, or knows that nobody is alive.
std::uint64_t heap::reap_row(std::uint32_t slot) noexcept {
    static constexpr unsigned per_lock = 256;
    std::uint64_t freed = 0;
    std::uint64_t next = 0;
    for (bool more = true; more;) {
        more = false;
        platform::lock_guard guard(mutex_);
        if (!lock_shared()) {
            return freed;
        }
        const std::uint64_t now = platform::monotonic_milliseconds();
        const std::uint64_t records = table_.control().record_bump;
        unsigned done = 0;
        for (std::uint64_t first = next; first < records; first += 64) {
            next = first;
            if (done >= per_lock) {
                more = true;
                break;
            }
            const std::uint64_t* word = table_.row_word(slot, static_cast<std::uint32_t>(first));
            while (*word != 0 && !table_.is_corrupt()) {
                const auto index = static_cast<std::uint32_t>(first + base::lowest_bit(*word));
                tlsf::block_record& r = table_.block_at(index);
                if (r.state == tlsf::block_state::punching) {
                    // Perhaps half punched: it has holes and is not clean.
                    table_.undo().note(&r.flags);
                    r.flags |= tlsf::holes;
                }
                if (unhold(index, r, slot)) {
                    if (r.state == tlsf::block_state::punching) {
                        tlsf_.finish_purge(index, false, now);
                    } else {
                        tlsf_.release(index, r.size, now);
                    }
                    ++freed;
                }
                ++done;
                if (!settle()) {
                    unlock_shared();
                    return freed;
                }
            }
            if (table_.is_corrupt()) {
                (void)settle();
                unlock_shared();
                return freed;
            }
        }
        unlock_shared();
    }
    return freed;
}

bool heap::row_is_empty(std::uint32_t slot) noexcept {
    platform::lock_guard guard(mutex_);
    const std::uint64_t records = table_.control().record_bump;
    for (std::uint64_t first = 0; first < records; first += 64) {
        if (*table_.row_word(slot, static_cast<std::uint32_t>(first)) != 0 || table_.is_corrupt()) {
            return false;
        }
    }
    return true;
}

std::uint64_t heap::reap_dead() noexcept {
    if (seg_->is_solo() || !usable() || inherited_) {
        return 0;
    }
    platform::lock_guard guard(reaping_);
    return reap_dead_slots() + expire_tokens(default_grace_ms);
}

// One thread at a time: all share the descriptor through which a dead slot's
// byte is taken, so to a second one it would seem free.
std::uint64_t heap::reap_dead_slots() noexcept {
    std::uint64_t freed = 0;
    for (std::uint32_t slot = 0; slot < seg_->geo().slot_count; ++slot) {
        segment::slot_entry& entry = seg_->slot_at(slot);
        if (slot == seg_->slot() || entry.state.load(std::memory_order_acquire) == 0 ||
            !seg_->hold_dead_slot(slot)) {
            continue;
        }
        // Perhaps somebody reaped it just before its byte was ours.
        if (entry.state.load(std::memory_order_acquire) != 0) {
            take_over_locks_of(slot);
            freed += reap_row(slot);
            if (row_is_empty(slot)) {
                entry.state.store(0, std::memory_order_release);
            }
        }
        seg_->let_dead_slot_go(slot);
    }
    return freed;
}

// The cheap periodic look: what children and peers that have exited held does
// not pile up until the capacity is reached.
std::uint64_t heap::reap_now_and_then() noexcept {
    static constexpr std::uint64_t interval_ms = 250;
    const std::uint64_t now = platform::monotonic_milliseconds();
    if (seg_->is_solo() || inherited_ ||
        now - last_reap_.load(std::memory_order_relaxed) < interval_ms || !reaping_.try_lock()) {
        return 0;
    }
    last_reap_.store(now, std::memory_order_relaxed);
    const std::uint64_t freed = usable() ? reap_dead_slots() + expire_tokens(default_grace_ms) : 0;
    reaping_.unlock();
    return freed;
}

std::uint64_t heap::reclaim(std::uint64_t grace_ms) noexcept {
    return_kept();
    const std::uint64_t freed = reap_dead();
    return freed + expire_tokens(grace_ms);
}

}  // namespace ndarena::heap
