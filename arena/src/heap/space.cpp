// Disk space: committing ahead of use, giving freed pages back.
#include "heap/heap.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <unistd.h>

namespace ndarena::heap {
namespace {

constexpr std::uint64_t kibibyte = 1024;
constexpr std::uint64_t mebibyte = 1024 * kibibyte;
constexpr unsigned commit_timeout_ms = 60000;
// Most that one allocate or free gives back on the way.
constexpr std::uint64_t purge_quantum = 256 * mebibyte;

}  // namespace

// Beyond what is needed: large steps where reserving is cheap (disks), small
// ones where it means zeroing memory.
std::uint64_t heap::extension_step(std::uint64_t watermark) const noexcept {
    const std::uint64_t step = memory_backed_
                                   ? std::clamp(watermark / 16, 64 * kibibyte, 4 * mebibyte)
                                   : std::clamp(watermark / 4, mebibyte, 64 * mebibyte);
    return base::align_down(step, segment::format_page);
}

// Moves the watermark so that the request fits at the end. The commit lock
// orders those who extend; the allocator's lock is held only to publish.
bool heap::extend_to_fit(std::uint64_t size, std::uint64_t alignment, refusal_cause& cause,
                         int& os_errno) noexcept {
    cause = refusal_cause::none;
    if (!seg_->descriptor_intact()) {
        poison("the arena's file descriptor was closed by other code in this process");
        cause = refusal_cause::poisoned;
        return false;
    }
    const auto outcome = commit_lock_.lock(seg_->owner_word(), commit_timeout_ms);
    if (outcome == segment::lock_outcome::timed_out) {
        cause = refusal_cause::lock;
        return false;
    }
    segment::control_page& c = seg_->control();
    std::uint64_t watermark = 0;
    std::uint64_t needed = 0;
    std::uint64_t ceiling = 0;
    {
        platform::lock_guard guard(mutex_);
        if (!lock_shared()) {
            commit_lock_.unlock();
            cause = refusal_cause::lock;
            return false;
        }
        watermark = c.watermark;
        ceiling = std::min(c.capacity, seg_->mapped_size());
        needed = tlsf_.shortfall(size, alignment);
        (void)settle();
        unlock_shared();
    }
    if (outcome == segment::lock_outcome::inherited) {
        seg_->undo_extend(watermark);
    }
    if (needed == 0) {  // somebody else has extended meanwhile
        commit_lock_.unlock();
        return true;
    }
    const std::uint64_t least = base::align_up(watermark + needed, segment::format_page);
    if (watermark + needed > ceiling) {
        commit_lock_.unlock();
        cause = refusal_cause::capacity;
        return false;
    }
    std::uint64_t target =
        std::min(std::max(least, watermark + extension_step(watermark)), ceiling);
    os_errno = seg_->extend(watermark, target);
    if (os_errno != 0 && target > std::min(least, ceiling)) {
        target = std::min(least, ceiling);
        os_errno = seg_->extend(watermark, target);
    }
    if (os_errno != 0) {
        commit_lock_.unlock();
        cause = refusal_cause::disk;
        return false;
    }
    {
        platform::lock_guard guard(mutex_);
        if (!lock_shared()) {
            seg_->undo_extend(watermark);
            commit_lock_.unlock();
            cause = refusal_cause::lock;
            return false;
        }
        tlsf_.extend(target, c.unclean != 0, platform::monotonic_milliseconds());
        if (!settle()) {
            cause = refusal_cause::poisoned;
        }
        unlock_shared();
    }
    commit_lock_.unlock();
    return cause == refusal_cause::none;
}

// none: try again. Before anyone sees a MemoryError: what the dead held, then
// what is merely warm.
heap::refusal_cause heap::make_room(const request& wanted, int& os_errno) noexcept {
    refusal_cause cause = refusal_cause::none;
    // Rather than grow: look, now and then, whether somebody has died.
    if (reap_now_and_then() != 0 || extend_to_fit(wanted.size, wanted.alignment, cause, os_errno)) {
        return refusal_cause::none;
    }
    if ((cause == refusal_cause::capacity || cause == refusal_cause::disk) && reap_dead() != 0) {
        return refusal_cause::none;
    }
    if (cause == refusal_cause::disk && trim() != 0 &&
        extend_to_fit(wanted.size, wanted.alignment, cause, os_errno)) {
        return refusal_cause::none;
    }
    return cause;
}

bool heap::add_records() noexcept {
    platform::lock_guard tables_guard(tables_);
    bool page_missing = false;
    {
        platform::lock_guard guard(mutex_);
        if (!lock_shared()) {
            refuse(refusal_cause::lock, table_.geo().chunk_bytes());
            return false;
        }
        if (room_for_record()) {  // another thread was here meanwhile
            unlock_shared();
            return true;
        }
        if (table_.control().chunk_count >= segment::max_chunks) {
            unlock_shared();
            refuse(refusal_cause::capacity, table_.geo().chunk_bytes());
            return false;
        }
        page_missing = table_.missing_radix_page();
        unlock_shared();
    }
    return (!page_missing || add_table(segment::format_page, false)) &&
           add_table(table_.geo().chunk_bytes(), true);
}

// Takes a block, makes it readable and zero outside the locks while it is an
// ordinary block of this process, then turns it into a table in one step.
bool heap::add_table(std::uint64_t bytes, bool is_chunk) noexcept {
    static constexpr int attempts = 200;
    const request wanted{bytes, bytes, segment::format_page, 0, false};
    found f;
    std::uint64_t patience = 0;
    for (int attempt = 0; !f.ok; ++attempt) {
        bool starved = false;
        std::uint32_t purged = 0;
        {
            platform::lock_guard guard(mutex_);
            purged = purges_done_.load(std::memory_order_relaxed);
            if (!lock_shared()) {
                refuse(refusal_cause::lock, bytes);
                return false;
            }
            give_back_kept(platform::monotonic_milliseconds());
            starved = table_.unused_count() < 3;
            if (!starved) {
                f.place =
                    tlsf_.allocate(bytes, segment::format_page, platform::monotonic_milliseconds());
                if (f.place.record != tlsf::nil) {
                    note_allocation(f, wanted);
                }
                f.ok = settle() && f.place.record != tlsf::nil;
            }
            unlock_shared();
        }
        if (f.ok) {
            break;
        }
        int os_errno = 0;
        const refusal_cause cause = make_room(wanted, os_errno);
        if (cause == refusal_cause::capacity && await_purge(purged, patience)) {
            continue;
        }
        if (cause != refusal_cause::none || attempt >= attempts) {
            note_refused();
            refuse(cause == refusal_cause::none ? refusal_cause::lock : cause, bytes, os_errno);
            return false;
        }
        if (attempt > 4) {
            // Other processes are adding tables too. Alone, only a free helps.
            if (starved && (seg_->is_solo() || !seg_->other_slots_alive())) {
                note_refused();
                refuse(refusal_cause::capacity, bytes);
                return false;
            }
            ::usleep(1000);
        }
    }
    if (const int rc = f.place.has_holes ? complete_holes(f) : 0; rc != 0) {
        abandon(f);
        refuse(refusal_cause::disk, bytes, rc);
        return false;
    }
    std::memset(seg_->base() + f.place.offset, 0, bytes);
    platform::lock_guard guard(mutex_);
    if (!lock_shared()) {
        return false;
    }
    tlsf::block_record& r = table_.at(f.place.record, tlsf::block_state::allocated);
    (void)unhold(f.place.record, r, seg_->slot());
    bool wanted_still = true;
    if (is_chunk) {
        wanted_still = !table_.missing_radix_page() && table_.add_chunk(f.place.offset);
    } else if ((wanted_still = table_.missing_radix_page())) {
        table_.add_radix_page(f.place.offset);
    }
    if (wanted_still) {
        tlsf_.make_metadata(f.place.record);
    } else {
        tlsf_.release(f.place.record, 0, platform::monotonic_milliseconds());
    }
    const bool ok = settle();
    unlock_shared();
    return ok;
}

void heap::set_purge(std::int64_t delay_ms, std::uint64_t budget) noexcept {
    return_kept();
    platform::lock_guard guard(mutex_);
    purge_delay_ms_ = delay_ms;
    purge_budget_ = budget;
    limit_kept();
}

// Under the slot lock: whether freed pages have waited long enough.
bool heap::purge_due(std::uint64_t now) noexcept {
    const segment::control_page& c = seg_->control();
    if (c.purge_first == tlsf::nil || !can_purge_) {
        return false;
    }
    if (c.purge_bytes > purge_budget_) {
        return true;
    }
    if (purge_delay_ms_ < 0) {
        return false;
    }
    return table_.at(c.purge_first, tlsf::block_state::free).serial +
               static_cast<std::uint64_t>(purge_delay_ms_) <=
           now;
}

// Returns how many blocks were given back or tried to be.
std::uint32_t heap::purge_if_due(bool due) noexcept {
    if (!due) {
        return 0;
    }
    (void)reap_now_and_then();
    const std::uint64_t now = platform::monotonic_milliseconds();
    std::uint64_t budget = 0;
    std::uint64_t cutoff = 0;
    {
        platform::lock_guard guard(mutex_);
        budget = purge_budget_;
        const auto delay = static_cast<std::uint64_t>(std::max<std::int64_t>(purge_delay_ms_, 0));
        cutoff = purge_delay_ms_ < 0 || delay > now ? 0 : now - delay;
    }
    std::uint32_t tried = 0;
    (void)purge(now, budget, purge_quantum, tried);  // above the budget: of any age
    if (cutoff != 0) {
        (void)purge(cutoff, 0, purge_quantum, tried);
    }
    return tried;
}

std::uint64_t heap::purge(std::uint64_t freed_before, std::uint64_t down_to, std::uint64_t at_most,
                          std::uint32_t& tried) noexcept {
    std::uint64_t given_back = 0;
    while (given_back < at_most && can_purge_) {
        const std::uint64_t bytes = purge_one(freed_before, down_to, false, tried);
        if (bytes == 0) {
            break;
        }
        given_back += bytes;
    }
    return given_back;
}

// True if a block that was out of reach is free again: other threads were
// giving pages back while the caller, who read `purges_done_` before and added
// what it gave back itself, found no room. `deadline` is 0 at first, and bounds
// all waits of one request.
bool heap::await_purge(std::uint32_t done_before, std::uint64_t& deadline) noexcept {
    static constexpr std::uint64_t patience_ms = 2000;
    static constexpr unsigned moment_us = 100;
    std::uint64_t now = platform::monotonic_milliseconds();
    if (deadline == 0) {
        deadline = now + patience_ms;
    }
    while (purges_done_.load(std::memory_order_acquire) == done_before) {
        if (purges_begun_.load(std::memory_order_acquire) == done_before || now >= deadline) {
            return false;
        }
        ::usleep(moment_us);
        now = platform::monotonic_milliseconds();
    }
    return now < deadline;
}

// Gives the oldest freed block back: taken off the lists and held by this
// process, punched outside all locks, freed again as zero pages.
std::uint64_t heap::purge_one(std::uint64_t freed_before, std::uint64_t down_to, bool tail,
                              std::uint32_t& tried) noexcept {
    std::uint32_t record = tlsf::nil;
    std::uint64_t offset = 0;
    std::uint64_t dirty = 0;
    {
        platform::lock_guard guard(mutex_);
        if (!lock_shared()) {
            return 0;
        }
        if (tail) {
            record = tlsf_.take_tail();
        } else if (seg_->control().purge_bytes > down_to) {
            record = tlsf_.take_for_purge(freed_before);
        }
        if (record != tlsf::nil) {
            tlsf::block_record& r = table_.at(record, tlsf::block_state::punching);
            hold(record, r);
            offset = r.offset;
            dirty = r.payload;
        }
        const bool ok = settle();
        unlock_shared();
        if (!ok || record == tlsf::nil) {
            return 0;
        }
        purges_begun_.fetch_add(1, std::memory_order_release);
        ++tried;
    }
    const int rc = seg_->descriptor_intact() ? discard(offset, dirty) : EBADF;
    platform::lock_guard guard(mutex_);
    purges_done_.fetch_add(1, std::memory_order_release);  // seen by who locks after us
    if (rc == EOPNOTSUPP || rc == ENOSYS || rc == EINVAL) {
        can_purge_ = false;  // this file system cannot: keep pages warm instead
    }
    if (!lock_shared()) {
        return 0;  // the row keeps it until this process has gone
    }
    tlsf::block_record& r = table_.at(record, tlsf::block_state::punching);
    (void)unhold(record, r, seg_->slot());
    tlsf_.finish_purge(record, rc == 0, platform::monotonic_milliseconds());
    (void)settle();
    unlock_shared();
    return rc == 0 ? dirty : 0;
}

int heap::discard(std::uint64_t offset, std::uint64_t dirty) noexcept {
    if (seg_->pages() == segment::backing::file) {
        return seg_->discard_range(offset, dirty);  // zeroes partial pages itself
    }
    const auto base = reinterpret_cast<std::uintptr_t>(seg_->base());
    const std::uint64_t first = base::align_up(base + offset, platform::page_size) - base;
    const std::uint64_t last = base::align_down(base + offset + dirty, platform::page_size) - base;
    if (last <= first) {
        return EINVAL;
    }
    const int rc = seg_->discard_range(first, last - first);
    if (rc == 0) {
        std::memset(seg_->base() + offset, 0, first - offset);
        std::memset(seg_->base() + last, 0, offset + dirty - last);
    }
    return rc;
}

void heap::fill(void* block, const void* from, std::uint64_t nbytes) noexcept {
    static constexpr std::uint64_t least = 2048;  // below it a call costs more
    auto* to = static_cast<std::byte*>(block);
    if (nbytes >= least && seg_->pages() == segment::backing::file && !inherited_ &&
        seg_->descriptor_intact()) {
        const auto offset = seg_->file_offset(static_cast<std::uint64_t>(to - seg_->base()));
        const std::uint64_t written = platform::write_at(seg_->fd(), offset, from, nbytes);
        to += written;
        from = static_cast<const std::byte*>(from) + written;
        nbytes -= written;
    }
    std::memcpy(to, from, nbytes);
}

std::uint64_t heap::trim() noexcept {
    if (inherited_ || !usable()) {
        return next() != nullptr ? next()->trim() : 0;
    }
    return_kept();
    const std::uint64_t now = platform::monotonic_milliseconds();
    std::uint32_t tried = 0;
    const std::uint64_t given_back = purge(now, 0, ~std::uint64_t{0}, tried);
    // What was committed ahead of use, too.
    return given_back + (can_purge_ ? purge_one(now, 0, true, tried) : 0);
}

}  // namespace ndarena::heap
