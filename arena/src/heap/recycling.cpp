// Keeping the last freed blocks of this process for its next requests of the
// same size.
//
// A free is put off: the block waits in `kept_` until a request of its size
// takes it, or until anything else is asked of the arena. Whatever looks for
// room, or counts, first gives back what is kept, so it finds the arena as if
// nothing had been put off: the same places are chosen, the same numbers seen,
// and nobody here is refused for what waits.
//
// Only blocks that nobody else can know (`map_entry::recyclable`), and only
// while nobody else has the segment open for writing: to others what is kept
// here would be missing. Its record's `payload` stays what the block was first
// asked for; publishing a block makes it exact.
#include "heap/heap.hpp"

#include <algorithm>
#include <cstring>

namespace ndarena::heap {
namespace {

constexpr std::uint64_t most_kept_bytes = std::uint64_t{4} << 20;
constexpr std::uint64_t capacity_share = 256;  // at most this part of the arena is kept
constexpr std::uint64_t budget_share = 8;      // and this part of what may stay warm
// So many frees that were put off, and the clock and the purge queue are looked
// at: a program may do nothing else.
constexpr std::uint32_t look_interval = 64;
constexpr std::uint64_t look_around_ms = 250;

}  // namespace

// How far into its block a payload starts: coloured blocks begin with a page.
std::uint64_t heap::shift_of(std::uint64_t key, std::uint64_t size) const noexcept {
    return size < tlsf::page_block_threshold
               ? 0
               : (reinterpret_cast<std::uintptr_t>(seg_->base()) + key) % segment::format_page;
}

std::uint32_t heap::recyclable_size(std::uint64_t key, std::uint64_t shift,
                                    std::uint64_t size) const noexcept {
    return size <= recycler::largest && shift == shift_of(key, size)
               ? static_cast<std::uint32_t>(size)
               : 0;
}

// Others may come while this process is idle, and be refused for what it keeps:
// that is never much. None where freed pages are to go back at once.
void heap::limit_kept() noexcept {
    const bool off = inherited_ || !seg_->writable() || purge_delay_ms_ == 0;
    kept_.set_limit(off ? 0
                        : std::min({most_kept_bytes, seg_->control().capacity / capacity_share,
                                    purge_budget_ / budget_share}));
}

// Under mutex_: nobody else allocates here.
bool heap::may_keep() noexcept {
    const std::uint64_t claims = __atomic_load_n(&seg_->control().claims, __ATOMIC_RELAXED);
    return __builtin_expect(claims == claims_seen_, 1) ? alone_ : look_around();
}

// Somebody has come, or may have gone. In a scratch arena fork children have a
// slot, but only free.
bool heap::look_around() noexcept {
    // The count first: who comes after it is counted later than its byte is held.
    claims_seen_ = __atomic_load_n(&seg_->control().claims, __ATOMIC_ACQUIRE);
    looked_around_ = platform::monotonic_milliseconds();
    alone_ = seg_->is_solo() || seg_->kind() == segment_kind::scratch || !seg_->other_slots_alive();
    if (!alone_ && !kept_.is_empty() && lock_shared()) {
        give_back_kept(looked_around_);
        unlock_shared();
    }
    return alone_;
}

// Nothing tells that the others have gone: ask now and then.
void heap::look_around_again(std::uint64_t now) noexcept {
    if (!alone_ && now - looked_around_ >= look_around_ms && kept_.limit() != 0) {
        (void)look_around();
    }
}

// A kept block that fits the request, or null.
void* heap::recycle(const request& wanted, bool zero) noexcept {
    // A large one that is to be zero may find pages that were never touched.
    if (kept_.is_empty() || (zero && wanted.size >= tlsf::page_block_threshold)) {
        return nullptr;
    }
    const auto base = reinterpret_cast<std::uintptr_t>(seg_->base());
    recycler::block b;
    {
        platform::lock_guard guard(mutex_);
        const auto fits = [&](std::uint64_t key) {
            return ((base + key) & (wanted.alignment - 1)) == 0 &&
                   shift_of(key, wanted.size) + wanted.nbytes <= wanted.size;
        };
        if (!may_keep() || !map_.reserve() || !kept_.take(wanted.size, fits, b)) {
            return nullptr;
        }
        const tlsf::block_record& r = table_.at(b.record);
        if (r.holders != 1 || r.serial != b.serial || r.size != b.size) {
            // Somebody else knows it after all: no other way but the ordinary one.
            if (lock_shared()) {
                release_record(b.record, b.key, platform::monotonic_milliseconds());
                unlock_shared();
            }
            return nullptr;
        }
        map_.insert({b.key, wanted.nbytes, b.serial, b.record, 1, log2_of(wanted.asked_alignment),
                     false, b.size});
    }
    std::byte* payload = seg_->base() + b.key;
    if (zero) {
        std::memset(payload, 0, wanted.nbytes);
    }
    return payload;
}

// Under mutex_. True: the block is kept and no longer in the map.
bool heap::keep(map_entry* entry, bool& due) noexcept {
    const std::uint32_t size = entry->recyclable;
    if (!kept_.accepts(size) || poisoned_.load(std::memory_order_relaxed) || !may_keep()) {
        return false;
    }
    const bool full = !kept_.has_room(size);
    if (full || ++kept_since_look_ >= look_interval) {
        kept_since_look_ = 0;
        if (!lock_shared()) {
            return false;
        }
        const std::uint64_t now = platform::monotonic_milliseconds();
        drain_deferred(now);
        if (full || is_overdue(now)) {
            give_back_kept(now);
        }
        due = purge_due(now);
        unlock_shared();
    }
    kept_.put({entry->key, entry->serial, entry->record, size, stamp_});
    map_.erase(entry);
    return true;
}

// What is kept has waited as long as freed pages may stay.
bool heap::is_overdue(std::uint64_t now) noexcept {
    stamp_ = static_cast<std::uint32_t>(now);
    return purge_delay_ms_ >= 0 && !kept_.is_empty() &&
           stamp_ - kept_.oldest_stamp() >= static_cast<std::uint64_t>(purge_delay_ms_);
}

// Under both locks.
void heap::give_back_kept(std::uint64_t now) noexcept {
    stamp_ = static_cast<std::uint32_t>(now);
    recycler::block b;
    while (kept_.take_any(b)) {
        release_record(b.record, b.key, now);
    }
}

void heap::return_kept() noexcept {
    platform::lock_guard guard(mutex_);
    if (!kept_.is_empty() && !poisoned_.load(std::memory_order_relaxed) && lock_shared()) {
        give_back_kept(platform::monotonic_milliseconds());
        unlock_shared();
    }
}

// Under both locks: others may know the block from here on, also when they hold it
// no more. Of scratch arenas nobody can be told.
void heap::publish_locked(map_entry& entry) noexcept {
    entry.known_elsewhere = seg_->kind() != segment_kind::scratch;
    if (entry.recyclable == 0) {
        return;
    }
    tlsf::block_record& r = table_.at(entry.record, tlsf::block_state::allocated);
    if (r.payload != entry.nbytes) {
        table_.undo().set(r.payload, entry.nbytes);
    }
    entry.recyclable = 0;
}

// Under mutex_. False: the lock was not to be had. Others change the line of
// a record only to link its neighbours, so the payload is read without it.
bool heap::publish(map_entry& entry) noexcept {
    if (entry.recyclable == 0 || poisoned_.load(std::memory_order_relaxed) ||
        table_.at(entry.record).payload == entry.nbytes) {
        entry.recyclable = 0;
        return true;
    }
    if (!lock_shared()) {
        return false;
    }
    publish_locked(entry);
    (void)settle();
    unlock_shared();
    return true;
}

}  // namespace ndarena::heap
