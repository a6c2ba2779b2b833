// Allocation, freeing and resizing of blocks of this process.
#include "heap/heap.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace ndarena::heap {
namespace {

// Records that one operation may need, plus those of adding a chunk.
constexpr std::uint64_t record_reserve = 8;
constexpr int max_attempts = 16;

constexpr std::uint64_t kibibyte = 1024;
constexpr std::uint64_t coloured_below = std::uint64_t{1} << 20;
constexpr std::uint32_t colours = 4;

}  // namespace

bool heap::room_for_record() noexcept { return table_.unused_count() >= record_reserve; }

void heap::hold(std::uint32_t record, tlsf::block_record& r) noexcept {
    auto& undo = table_.undo();
    std::uint64_t* word = table_.row_word(seg_->slot(), record);
    if constexpr (!base::planted(base::bug::row_not_noted)) {
        undo.note(word);
    }
    *word |= tlsf::block_table::row_bit(record);
    undo.note(&r);
    ++r.holders;
}

bool heap::unhold(std::uint32_t record, tlsf::block_record& r, std::uint32_t slot) noexcept {
    auto& undo = table_.undo();
    std::uint64_t* word = table_.row_word(slot, record);
    if ((*word & tlsf::block_table::row_bit(record)) == 0 || r.holders == 0) {
        (void)table_.trap();
        return false;
    }
    undo.set(*word, *word & ~tlsf::block_table::row_bit(record));
    undo.note(&r);
    --r.holders;
    return r.holders == 0;
}

// Owner, size asked for, identity and colour of a block just carved out.
void heap::note_allocation(found& f, const request& wanted) noexcept {
    const std::uint64_t nbytes = wanted.nbytes;
    segment::control_page& c = seg_->control();
    auto& undo = table_.undo();
    tlsf::block_record& r = table_.at(f.place.record, tlsf::block_state::allocated);
    undo.note(&r);
    table_.note_counters();
    __atomic_store_n(&c.serial, c.serial + 1, __ATOMIC_RELAXED);  // read without the lock
    r.payload = nbytes;
    r.serial = c.session ^ c.serial;
    r.prev_purge = 0;  // no name holds it
    hold(f.place.record, r);
    if (f.place.has_holes) {
        r.flags |= tlsf::holes;
    }
    std::uint64_t shift = 0;
    if (wanted.may_colour && nbytes >= tlsf::page_block_threshold && nbytes <= coloured_below) {
        // Operands that all start at the same place modulo 4 KiB alias in the
        // store buffer; stagger them where rounding has left room.
        shift =
            std::min<std::uint64_t>(next_colour_++ % colours, (f.place.size - nbytes) / kibibyte);
    }
    r.colour = static_cast<std::uint8_t>(shift);
    f.offset = f.place.offset + shift * kibibyte;
    f.serial = r.serial;
}

heap::found heap::try_allocate(const request& wanted, std::uint64_t now, bool thorough) noexcept {
    found f;
    if (!room_for_record()) {
        f.need_records = true;
        return f;
    }
    f.place = tlsf_.allocate(wanted.size, wanted.alignment, now, thorough);
    if (f.place.record == tlsf::nil) {
        (void)settle();
        return f;
    }
    note_allocation(f, wanted);
    f.ok = settle();
    return f;
}

void* heap::allocate(std::uint64_t nbytes, std::uint64_t alignment, bool zero) noexcept {
    if (inherited_) {
        heap* own = successor();
        return own != nullptr ? own->allocate(nbytes, alignment, zero)
                              : refuse(refusal_cause::forked, nbytes);
    }
    if (!usable()) {
        return refuse(!seg_->writable()                           ? refusal_cause::read_only
                      : poisoned_.load(std::memory_order_relaxed) ? refusal_cause::poisoned
                                                                  : refusal_cause::forked,
                      nbytes);
    }
    nbytes = std::max<std::uint64_t>(nbytes, 1);
    if (nbytes > segment::max_capacity || alignment > segment::max_alignment ||
        (alignment != 0 && !base::is_power_of_two(alignment))) {
        return refuse(refusal_cause::size, nbytes);
    }
    const std::uint64_t asked = alignment;
    alignment = std::max({alignment, seg_->header().alignment, segment::granule});
    request wanted{nbytes, tlsf::block_size_for(nbytes), alignment,
                   static_cast<std::uint32_t>(asked), alignment <= kibibyte};
    if (void* again = recycle(wanted, zero); again != nullptr) {
        return again;
    }
    if (wanted.size >= tlsf::page_block_threshold) {
        wanted.alignment = std::max(alignment, segment::format_page);
    }
    found f;
    const std::uint64_t dirty = find_place(wanted, f);
    if (!f.ok) {
        return nullptr;
    }
    std::byte* payload = seg_->base() + f.offset;
    if (zero && dirty > f.offset - f.place.offset) {
        std::memset(payload, 0, std::min(nbytes, dirty - (f.offset - f.place.offset)));
    }
    return payload;
}

// Finds a place and enters it in the pointer map. Returns how many bytes from
// the block's start may be non-zero. On failure `f.ok` is false and the
// refusal is recorded.
std::uint64_t heap::find_place(const request& wanted, found& f) noexcept {
    const std::uint64_t nbytes = wanted.nbytes;
    bool thorough = false;       // the lists have been searched as far as it goes
    bool disk_was_full = false;  // space has been given back once
    std::uint64_t patience = 0;
    for (int attempt = 0; attempt < max_attempts; ++attempt) {
        const std::uint64_t now = platform::monotonic_milliseconds();
        bool due = false;
        std::uint32_t purged = 0;
        {
            platform::lock_guard guard(mutex_);
            purged = purges_done_.load(std::memory_order_relaxed);
            if (!map_.reserve()) {
                refuse(refusal_cause::memory, nbytes);
                return 0;
            }
            if (!lock_shared()) {
                refuse(usable() ? refusal_cause::lock : refusal_cause::poisoned, nbytes);
                return 0;
            }
            drain_deferred(now);
            give_back_kept(now);
            f = try_allocate(wanted, now, thorough);
            due = purge_due(now);
            unlock_shared();
            if (f.ok && !f.place.has_holes) {
                enter(f, wanted);
            }
        }
        purged += purge_if_due(due);
        if (f.ok && !f.place.has_holes) {
            return f.place.dirty;
        }
        refusal_cause cause = refusal_cause::none;
        int os_errno = 0;
        if (f.ok) {
            os_errno = complete_holes(f);
            if (os_errno == 0) {
                platform::lock_guard guard(mutex_);
                if (map_.reserve()) {
                    enter(f, wanted);
                    return f.place.dirty;
                }
                cause = refusal_cause::memory;
            }
            abandon(f);
            f.ok = false;
            if (cause == refusal_cause::none && !disk_was_full) {
                disk_was_full = true;
                (void)reap_dead();
                (void)trim();
                continue;
            }
            cause = cause == refusal_cause::none ? refusal_cause::disk : cause;
        } else if (poisoned_.load(std::memory_order_relaxed)) {
            cause = refusal_cause::poisoned;
        } else if (f.need_records) {
            if (!add_records()) {
                return 0;
            }
            continue;
        } else {
            cause = make_room(wanted, os_errno);
            if (cause == refusal_cause::none) {
                continue;
            }
            if (!thorough) {
                thorough = true;
                continue;
            }
            if (cause == refusal_cause::capacity && await_purge(purged, patience)) {
                --attempt;  // bounded by the patience
                continue;
            }
        }
        if (cause == refusal_cause::capacity || cause == refusal_cause::disk) {
            note_refused();
        }
        refuse(cause, nbytes, os_errno);
        return 0;
    }
    note_refused();
    refuse(refusal_cause::capacity, nbytes);
    return 0;
}

void heap::enter(const found& f, const request& wanted) noexcept {
    map_.insert({f.offset, wanted.nbytes, f.serial, f.place.record, 1,
                 log2_of(wanted.asked_alignment), false,
                 recyclable_size(f.offset, f.offset - f.place.offset, wanted.size)});
}

// Commits a block that lies over punched pages, outside all locks: it is held
// by this process already, so it is reaped if we die here.
int heap::complete_holes(const found& f) noexcept {
    if (!seg_->descriptor_intact()) {
        poison("the arena's file descriptor was closed by other code in this process");
        return EBADF;
    }
    if (const int rc = seg_->commit_range(f.place.offset, f.place.size); rc != 0) {
        return rc;
    }
    return clear_holes(f.place.record) ? 0 : EIO;
}

// The block's pages are committed now.
bool heap::clear_holes(std::uint32_t record) noexcept {
    platform::lock_guard guard(mutex_);
    if (!lock_shared()) {
        return false;
    }
    tlsf::block_record& r = table_.at(record, tlsf::block_state::allocated);
    table_.undo().note(&r.flags);
    r.flags = static_cast<std::uint8_t>(r.flags & ~tlsf::holes);
    const bool ok = settle();
    unlock_shared();
    return ok;
}

// Gives a block back whose pages could not be committed.
void heap::abandon(const found& f) noexcept {
    // A failed commit may have kept part of the space; all of it is dead.
    // Without a descriptor only whole pages can be given back: then it is not
    // clean to its edges.
    const bool clean = seg_->discard_range(f.place.offset, f.place.size) == 0 &&
                       seg_->pages() == segment::backing::file;
    platform::lock_guard guard(mutex_);
    if (!lock_shared()) {
        return;  // the row keeps it until this process has gone
    }
    tlsf::block_record& r = table_.at(f.place.record, tlsf::block_state::allocated);
    if (unhold(f.place.record, r, seg_->slot())) {
        r.flags |= tlsf::holes;
        tlsf_.release(f.place.record, clean ? 0 : f.place.size, platform::monotonic_milliseconds());
    }
    (void)settle();
    unlock_shared();
}

void heap::release_record(std::uint32_t record, std::uint64_t payload_offset,
                          std::uint64_t now) noexcept {
    tlsf::block_record& r = table_.at(record, tlsf::block_state::allocated);
    if (payload_offset < r.offset || payload_offset - r.offset >= r.size) {
        (void)table_.trap();
    } else if (unhold(record, r, seg_->slot())) {
        tlsf_.release(record, r.size, now);
    }
    (void)settle();
}

void heap::drain_deferred(std::uint64_t now) noexcept {
    for (const map_entry& entry : deferred_) {
        release_record(entry.record, entry.key, now);
    }
    deferred_.clear();
}

// In a fork child of a private arena: its own copies of a block's pages.
void heap::drop_private_pages(const map_entry& entry) noexcept {
    const std::uint64_t first = base::align_up(entry.key, platform::page_size);
    const std::uint64_t last = base::align_down(entry.key + entry.nbytes, platform::page_size);
    if (last > first) {
        (void)platform::discard_private(seg_->base() + first, last - first);
    }
}

bool heap::deallocate(void* address) noexcept {
    if (address == nullptr || !contains(address)) {
        return false;
    }
    const auto* p = static_cast<std::byte*>(address);
    if (p < seg_->base() || p >= seg_->base() + seg_->mapped_size()) {
        return next()->deallocate(address);
    }
    const auto key = static_cast<std::uint64_t>(p - seg_->base());
    if (!platform::fork_guard_intact()) {
        return true;  // a child without a slot never frees
    }
    bool due = false;
    {
        platform::lock_guard guard(mutex_);
        map_entry* place = map_.find(key);
        if (place == nullptr) {
            return false;
        }
        if (place->references > 1) {
            --place->references;
            return true;
        }
        if (!keep(place, due)) {
            release(place, due);
        }
    }
    (void)purge_if_due(due);
    return true;
}

// Under mutex_: this process's last reference to the block ends.
void heap::release(map_entry* place, bool& due) noexcept {
    const std::uint64_t now = platform::monotonic_milliseconds();
    const map_entry entry = *place;
    map_.erase(place);  // before the block can be handed out again
    if (poisoned_.load(std::memory_order_relaxed)) {
        return;
    }
    if (inherited_) {
        drop_private_pages(entry);
    }
    if (!lock_shared()) {
        try {
            deferred_.push_back(entry);
        } catch (...) {  // it stays in the row until this process has gone
        }
        return;
    }
    drain_deferred(now);
    release_record(entry.record, entry.key, now);
    due = !inherited_ && purge_due(now);
    unlock_shared();
    look_around_again(now);
}

std::uint64_t heap::size_of(const void* address) noexcept {
    const auto* p = static_cast<const std::byte*>(address);
    if (p < seg_->base() || p >= seg_->base() + seg_->mapped_size()) {
        return next() != nullptr ? next()->size_of(address) : 0;
    }
    platform::lock_guard guard(mutex_);
    const map_entry* entry = map_.find(static_cast<std::uint64_t>(p - seg_->base()));
    return entry == nullptr ? 0 : entry->nbytes;
}

void* heap::reallocate(void* address, std::uint64_t nbytes) noexcept {
    if (address == nullptr) {
        return allocate(nbytes, 0, false);
    }
    const auto* p = static_cast<std::byte*>(address);
    if (p < seg_->base() || p >= seg_->base() + seg_->mapped_size()) {
        return next() != nullptr ? next()->reallocate(address, nbytes) : nullptr;
    }
    nbytes = std::max<std::uint64_t>(nbytes, 1);
    if (nbytes > segment::max_capacity) {
        return refuse(refusal_cause::size, nbytes);
    }
    std::uint64_t old_bytes = 0;
    std::uint64_t alignment = 0;
    {
        platform::lock_guard guard(mutex_);
        map_entry* entry = map_.find(static_cast<std::uint64_t>(p - seg_->base()));
        if (entry == nullptr) {
            return nullptr;
        }
        old_bytes = entry->nbytes;
        alignment = entry->alignment_log2 == 0 ? 0 : std::uint64_t{1} << entry->alignment_log2;
    }
    if (!inherited_ && usable()) {
        map_entry entry{};
        entry.key = static_cast<std::uint64_t>(p - seg_->base());
        entry.nbytes = old_bytes;
        switch (resize_in_place(&entry, nbytes)) {
            case resize_outcome::done:
                return address;
            case resize_outcome::refused:
                return nullptr;
            case resize_outcome::move:
                break;
        }
    }
    return reallocate_elsewhere(address, old_bytes, nbytes, alignment);
}

void* heap::reallocate_elsewhere(void* address, std::uint64_t old_bytes, std::uint64_t nbytes,
                                 std::uint64_t alignment) noexcept {
    void* moved = allocate(nbytes, alignment, false);
    if (moved != nullptr) {
        // Blocks are apart, but in damaged tables they may not be.
        std::memmove(moved, address, std::min(old_bytes, nbytes));
        deallocate(address);
    }
    return moved;
}

heap::resize_outcome heap::resize_in_place(map_entry* wanted, std::uint64_t nbytes) noexcept {
    const std::uint64_t now = platform::monotonic_milliseconds();
    tlsf::placement grown;
    std::uint64_t old_size = 0;
    std::uint32_t record = 0;
    {
        platform::lock_guard guard(mutex_);
        map_entry* entry = map_.find(wanted->key);
        if (entry == nullptr || !lock_shared()) {
            return entry == nullptr ? resize_outcome::refused : resize_outcome::move;
        }
        give_back_kept(now);  // perhaps the neighbour is among them
        record = entry->record;
        tlsf::block_record& r = table_.at(record, tlsf::block_state::allocated);
        old_size = r.size;
        const std::uint64_t shift = wanted->key - r.offset;
        const std::uint64_t size = tlsf::block_size_for(nbytes + shift);
        const auto address = reinterpret_cast<std::uintptr_t>(seg_->base()) + r.offset;
        // Blocks of whole pages start at one; a shared block is never resized, nor
        // one that others may still know of.
        const bool possible =
            r.holders == 1 && entry->references == 1 && !entry->known_elsewhere &&
            room_for_record() &&
            (size < tlsf::page_block_threshold || address % segment::format_page == 0);
        const bool done = possible && tlsf_.resize(record, size, now, grown);
        if (done) {
            table_.undo().set(r.payload, nbytes);
        }
        const bool settled = settle();
        unlock_shared();
        if (!done || !settled) {
            return resize_outcome::move;
        }
        map_.resized(entry, nbytes);
        if (entry->recyclable != 0) {
            entry->recyclable = recyclable_size(entry->key, shift, size);
        }
    }
    if (!grown.has_holes) {
        return resize_outcome::done;
    }
    const int rc = seg_->commit_range(grown.offset + old_size, grown.size - old_size);
    if (rc == 0) {
        // If the lock is not to be had the mark stays: it only costs a commit.
        (void)clear_holes(record);
        return resize_outcome::done;
    }
    // The new part has no room on the disk: shrink back to what was.
    (void)seg_->discard_range(grown.offset + old_size, grown.size - old_size);
    platform::lock_guard guard(mutex_);
    if (map_entry* entry = map_.find(wanted->key); entry != nullptr && lock_shared()) {
        tlsf::block_record& r = table_.at(record, tlsf::block_state::allocated);
        // The mark set when it grew is inherited by the tail that is split off.
        if (tlsf_.resize(record, old_size, now, grown)) {
            table_.undo().set(r.payload, wanted->nbytes);
            table_.undo().note(&r.flags);
            r.flags = static_cast<std::uint8_t>(r.flags & ~tlsf::holes);
        }
        (void)settle();
        unlock_shared();
        map_.resized(entry, wanted->nbytes);
        entry->recyclable = 0;  // whatever it has become
    }
    refuse(refusal_cause::disk, nbytes, rc);
    return resize_outcome::refused;
}

}  // namespace ndarena::heap
