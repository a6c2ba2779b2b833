// What names hold: blocks that outlive the processes which made them.
//
// A commit of the directory is one small operation that switches the root and
// leaves a ledger of what follows from it. The ledger is carried out in steps,
// each an operation of its own, by whoever comes first: the committing process,
// or after its death anyone who takes its locks over or reaps it.
//
// A dropped block waits in its ledger while a stored root or a reader may still
// lead to it.
#include "heap/heap.hpp"

#include <algorithm>
#include <cstring>
#include <new>

namespace ndarena::heap {
namespace {

using segment::name_ledger;

constexpr unsigned steps_per_lock = 8;
static_assert(offsetof(segment::control_page, epoch) ==
              offsetof(segment::control_page, directory_root) + 3 * sizeof(std::uint64_t));

std::uint64_t colour_bytes(const tlsf::block_record& r) noexcept {
    return r.colour * std::uint64_t{1024};
}

}  // namespace

bool heap::is_durable() const noexcept {
    return seg_->fd() >= 0 && seg_->pages() == segment::backing::file &&
           (seg_->kind() == segment_kind::file || seg_->kind() == segment_kind::buffer);
}

names_root heap::names() const noexcept {
    const segment::control_page& c = seg_->control();
    names_root seen;
    if (state_is_void() ||
        (!seg_->writable() && __atomic_load_n(&c.initialized, __ATOMIC_ACQUIRE) != 1)) {
        // Another instance's state: what was stored is all there is. Epoch 0 is
        // before all that a writer may begin meanwhile.
        const segment::root_page* root = segment::current_root(seg_->base(), seg_->header());
        seen.offset = root == nullptr ? 0 : root->directory;
        return seen;
    }
    if (!seg_->writable() && !seg_->other_slots_alive()) {
        // Someone died in the middle of an operation; perhaps of a commit, which
        // whoever opens the arena for writing will take back.
        if (const auto* line = table_.undo().saved_line(&c.directory_root)) {
            seen.offset = line[0];
            seen.epoch = line[3];
            return seen;
        }
    }
    std::uint64_t after = 0;
    do {
        // Commits store the root first: an old epoch with a new root only makes
        // whoever compares them look again.
        seen.epoch = __atomic_load_n(&c.epoch, __ATOMIC_ACQUIRE);
        seen.offset = __atomic_load_n(&c.directory_root, __ATOMIC_ACQUIRE);
        seen.record = __atomic_load_n(&c.directory_record, __ATOMIC_ACQUIRE);
        after = __atomic_load_n(&c.epoch, __ATOMIC_ACQUIRE);
    } while (after != seen.epoch);
    return seen;
}

// Under both locks. The record of the block whose payload starts at `offset`,
// nil if there is none that a name holds.
std::uint32_t heap::record_at(std::uint64_t offset, std::uint32_t hint) noexcept {
    const auto matches = [&](std::uint32_t record) {
        if (record >= seg_->control().record_bump) {
            return false;
        }
        const tlsf::block_record& r = table_.at(record);
        return r.state == tlsf::block_state::allocated && r.prev_purge != 0 && r.holders != 0 &&
               r.offset + colour_bytes(r) == offset;
    };
    if (matches(hint)) {
        return hint;
    }
    // The allocator has been rebuilt since the hint was written. Blocks that
    // names hold do not move, so one look at all of them is enough.
    if (!named_known_) {
        try {
            const std::uint32_t records = seg_->control().record_bump;
            for (std::uint32_t i = 0; i < records && !table_.is_corrupt(); ++i) {
                const tlsf::block_record& r = table_.at(i);
                if (r.state == tlsf::block_state::allocated && r.prev_purge != 0) {
                    named_.emplace_back(r.offset + colour_bytes(r), i);
                }
            }
            std::sort(named_.begin(), named_.end());
            named_known_ = true;
        } catch (const std::bad_alloc&) {
            named_.clear();
            return tlsf::nil;
        }
    }
    const auto place = std::lower_bound(named_.begin(), named_.end(),
                                        std::pair<std::uint64_t, std::uint32_t>{offset, 0});
    return place != named_.end() && place->first == offset && matches(place->second) ? place->second
                                                                                     : tlsf::nil;
}

result<std::uint32_t> heap::resolve_named(std::uint64_t offset, std::uint32_t hint) {
    platform::lock_guard guard(mutex_);
    if (!lock_shared()) {
        return not_locked();
    }
    const std::uint32_t record = record_at(offset, hint);
    (void)settle();
    unlock_shared();
    if (record == tlsf::nil) {
        return error{errc::corruption, 0,
                     "the directory names a block at offset " + std::to_string(offset) +
                         " that the arena does not have; `ndarena check` says more",
                     seg_->path()};
    }
    return record;
}

result<void*> heap::hold_named(const names_root& seen, std::uint64_t offset, std::uint32_t hint,
                               std::uint64_t nbytes) {
    if (!usable()) {
        return error{errc::read_only, 0, "this process cannot write to the arena", seg_->path()};
    }
    // A block that the last commit brought is not yet a name's before its ledger
    // is carried out, and who committed may be slow, or dead.
    finish_names();
    std::uint32_t record = tlsf::nil;
    std::uint64_t block_offset = 0;
    std::uint64_t block_size = 0;
    bool with_holes = false;
    {
        platform::lock_guard guard(mutex_);
        if (!map_.reserve()) {
            return error{errc::no_memory, 0, "no memory for the table of blocks", seg_->path()};
        }
        if (!lock_shared()) {
            return not_locked();
        }
        const std::uint64_t now = platform::monotonic_milliseconds();
        drain_deferred(now);
        give_back_kept(now);  // the row holds a block once
        const segment::control_page& c = seg_->control();
        const bool current =
            c.epoch == seen.epoch && c.directory_root == seen.offset && c.ledger == tlsf::nil;
        std::uint64_t serial = 0;
        map_entry* known = nullptr;
        if (current && (record = record_at(offset, hint)) != tlsf::nil) {
            tlsf::block_record& r = table_.at(record, tlsf::block_state::allocated);
            serial = r.serial;
            known = map_.find(offset);
            if (nbytes > r.size - colour_bytes(r)) {
                record = tlsf::nil;
            } else if (known == nullptr) {
                hold(record, r);
                with_holes = (r.flags & tlsf::holes) != 0;
                block_offset = r.offset;
                block_size = r.size;
            }
        }
        const bool ok = settle();
        unlock_shared();
        if (!ok) {
            return damaged();
        }
        if (!current) {
            return error{errc::stale, 0, "the names have changed", seg_->path()};
        }
        if (record == tlsf::nil) {
            return error{errc::corruption, 0,
                         "the directory names a block at offset " + std::to_string(offset) +
                             " that the arena does not have; `ndarena check` says more",
                         seg_->path()};
        }
        if (known != nullptr) {
            ++known->references;
        } else {
            map_.insert({offset, nbytes, serial, record, 1, 0, true, 0});
        }
    }
    void* address = seg_->base() + offset;
    if (with_holes) {
        // A copy of the file may be sparse where this block was never written.
        if (const int rc = seg_->commit_range(block_offset, block_size); rc != 0) {
            (void)deallocate(address);
            return platform::system_error("no room on the device for the array's pages", rc,
                                          seg_->path());
        }
        (void)clear_holes(record);
    }
    return address;
}

// The ledger in the block, or null (and the table is marked corrupt).
name_ledger* heap::ledger_in(std::uint32_t record) noexcept {
    const tlsf::block_record& r = table_.at(record, tlsf::block_state::allocated);
    const std::uint64_t shift = colour_bytes(r);
    auto* ledger = reinterpret_cast<name_ledger*>(seg_->base() + r.offset + shift);
    if (table_.is_corrupt() || !base::range_within(shift, sizeof(name_ledger), 0, r.size) ||
        !base::range_within(shift + sizeof(name_ledger),
                            (std::uint64_t{ledger->adds} + ledger->drops) * 4, 0, r.size)) {
        (void)table_.trap();
        return nullptr;
    }
    return ledger;
}

std::uint64_t heap::ledger_bytes(std::size_t adds, std::size_t drops) noexcept {
    return sizeof(name_ledger) + (adds + drops) * sizeof(std::uint32_t);
}

void heap::fill_ledger(void* address, const std::vector<std::uint32_t>& adds,
                       const std::vector<std::uint32_t>& drops) noexcept {
    auto* ledger = static_cast<name_ledger*>(address);
    *ledger = name_ledger{};
    ledger->epoch = seg_->control().epoch + 1;
    ledger->adds = static_cast<std::uint32_t>(adds.size());
    ledger->drops = static_cast<std::uint32_t>(drops.size());
    ledger->next = tlsf::nil;
    auto* records = reinterpret_cast<std::uint32_t*>(ledger + 1);
    std::copy(adds.begin(), adds.end(), records);
    std::copy(drops.begin(), drops.end(), records + adds.size());
}

result<void> heap::commit_names(std::uint64_t root, std::uint32_t record, const void* ledger) {
    {
        platform::lock_guard guard(mutex_);
        map_entry* entry = map_.find(
            static_cast<std::uint64_t>(static_cast<const std::byte*>(ledger) - seg_->base()));
        if (entry == nullptr || !lock_shared()) {
            return not_locked();
        }
        segment::control_page& c = seg_->control();
        if (c.ledger != tlsf::nil) {
            (void)table_.trap();  // the directory's lock excludes it
        }
        table_.undo().note(&c.directory_root);
        __atomic_store_n(&c.directory_root, root, __ATOMIC_RELEASE);
        __atomic_store_n(&c.directory_record, record, __ATOMIC_RELEASE);
        publish_locked(*entry);
        __atomic_store_n(&c.ledger, entry->record, __ATOMIC_RELEASE);
        __atomic_store_n(&c.epoch, c.epoch + 1, __ATOMIC_RELEASE);
        const bool ok = settle();
        unlock_shared();
        if (!ok) {
            return damaged();
        }
    }
    finish_names();
    return {};
}

// A name lets go of the block.
void heap::unname(std::uint32_t record, std::uint64_t now) noexcept {
    tlsf::block_record& r = table_.at(record, tlsf::block_state::allocated);
    if (r.prev_purge == 0) {
        (void)table_.trap();
        return;
    }
    table_.undo().note(&r);
    --r.prev_purge;
    drop_hold(record, now);
}

// One step of the ledger that is being carried out; false when it is done.
bool heap::carry_out(bool watched) noexcept {
    segment::control_page& c = seg_->control();
    auto& undo = table_.undo();
    name_ledger* ledger = ledger_in(c.ledger);
    if (ledger == nullptr) {
        return false;
    }
    auto* records = reinterpret_cast<std::uint32_t*>(ledger + 1);
    undo.note(ledger);
    const std::uint32_t step = ledger->done;
    if (step < ledger->adds) {
        tlsf::block_record& r = table_.at(records[step], tlsf::block_state::allocated);
        undo.note(&r);
        ++r.holders;
        ++r.prev_purge;
        ++ledger->done;
        return true;
    }
    if (step - ledger->adds < ledger->drops) {
        const std::uint32_t dropped = records[step];
        const tlsf::block_record& r = table_.at(dropped, tlsf::block_state::allocated);
        const bool stored = is_durable() && (r.serial ^ c.session) <= c.snapshot_serial;
        ++ledger->done;
        if ((!stored && !watched) || base::planted(base::bug::reuse_before_flush)) {
            undo.set(records[step], tlsf::nil);
            unname(dropped, platform::monotonic_milliseconds());
        } else {
            ++ledger->kept;
        }
        return true;
    }
    const std::uint32_t record = c.ledger;
    undo.note(&c.directory_root);
    __atomic_store_n(&c.ledger, tlsf::nil, __ATOMIC_RELEASE);
    if (ledger->kept != 0) {
        tlsf::block_record& r = table_.at(record, tlsf::block_state::allocated);
        undo.note(&r);
        ++r.holders;
        ++r.prev_purge;
        ledger->next = tlsf::nil;
        if (c.dropped_last != tlsf::nil) {
            if (name_ledger* last = ledger_in(c.dropped_last)) {
                undo.note(last);
                last->next = record;
            }
        } else {
            __atomic_store_n(&c.dropped_first, record, __ATOMIC_RELEASE);
        }
        c.dropped_last = record;
    }
    return false;
}

void heap::finish_names() noexcept {
    segment::control_page& c = seg_->control();
    if (!usable() || inherited_) {
        return;
    }
    for (bool more = true; more;) {
        if (__atomic_load_n(&c.ledger, __ATOMIC_ACQUIRE) == tlsf::nil) {
            return;
        }
        // After the commit: a reader who comes later sees the new names.
        const bool watched = seg_->has_readers(__atomic_load_n(&c.epoch, __ATOMIC_ACQUIRE));
        platform::lock_guard guard(mutex_);
        if (!lock_shared()) {
            return;
        }
        more = c.ledger != tlsf::nil;
        for (unsigned i = 0; i < steps_per_lock && more; ++i) {
            more = carry_out(watched);
            if (!settle()) {
                more = false;
            }
        }
        unlock_shared();
    }
}

// Under both locks: one step of releasing the oldest waiting ledger, which may
// be released; false when it is gone.
bool heap::release_step(std::uint64_t now) noexcept {
    segment::control_page& c = seg_->control();
    auto& undo = table_.undo();
    const std::uint32_t record = c.dropped_first;
    name_ledger* ledger = ledger_in(record);
    if (ledger == nullptr) {
        return false;
    }
    undo.note(ledger);
    auto* records = reinterpret_cast<std::uint32_t*>(ledger + 1);
    while (ledger->released < ledger->drops) {
        const std::uint32_t dropped = records[ledger->adds + ledger->released++];
        if (dropped != tlsf::nil) {
            unname(dropped, now);
            return true;
        }
    }
    undo.note(&c.directory_root);
    __atomic_store_n(&c.dropped_first, ledger->next, __ATOMIC_RELEASE);
    if (ledger->next == tlsf::nil) {
        c.dropped_last = tlsf::nil;
    }
    unname(record, now);
    return false;
}

std::uint64_t heap::release_dropped() noexcept {
    segment::control_page& c = seg_->control();
    std::uint64_t released = 0;
    while (usable() && !inherited_ &&
           __atomic_load_n(&c.dropped_first, __ATOMIC_ACQUIRE) != tlsf::nil) {
        std::uint64_t epoch = 0;
        {
            platform::lock_guard guard(mutex_);
            if (!lock_shared()) {
                return released;
            }
            const name_ledger* ledger =
                c.dropped_first == tlsf::nil ? nullptr : ledger_in(c.dropped_first);
            epoch = ledger == nullptr ? 0 : ledger->epoch;
            const bool wait = ledger == nullptr || (is_durable() && c.durable < epoch);
            (void)settle();
            unlock_shared();
            if (wait) {
                return released;
            }
        }
        if (seg_->has_readers(epoch)) {
            return released;
        }
        platform::lock_guard guard(mutex_);
        if (!lock_shared()) {
            return released;
        }
        const std::uint64_t now = platform::monotonic_milliseconds();
        for (bool more = c.dropped_first != tlsf::nil; more;) {
            // Somebody else may have released it, and this is the next one.
            const name_ledger* ledger = ledger_in(c.dropped_first);
            more = ledger != nullptr && ledger->epoch <= epoch && release_step(now);
            more = settle() && more;
            released += more ? 1 : 0;
        }
        unlock_shared();
    }
    return released;
}

}  // namespace ndarena::heap
