// References between processes: holding a block once more, sending it, and
// taking over what was sent.
//
// A message owns its block through a transit token, which belongs to the arena
// and not to a process: it outlives its sender. The first to unpack the message
// takes the token's hold over; later ones find the token gone and get a hold
// of their own only while somebody else still has one.
#include "heap/heap.hpp"

#include <algorithm>
#include <array>

namespace ndarena::heap {
namespace {

constexpr std::uint32_t in_flight = 1;  // transit_token::state; 0: unused
}  // namespace

segment::transit_token& heap::token_at(std::uint32_t index) const noexcept {
    return reinterpret_cast<segment::transit_token*>(seg_->base() +
                                                     seg_->geo().transit_offset())[index];
}

// Never more than there are, whatever a damaged page says.
std::uint32_t heap::tokens_in_use() const noexcept {
    return std::min(seg_->control().transit_bump, seg_->geo().transit_count);
}

bool heap::identify(const void* address, block_id& id, std::uint64_t& nbytes) noexcept {
    const auto* p = static_cast<const std::byte*>(address);
    if (p < seg_->base() || p >= seg_->base() + seg_->mapped_size()) {
        return next() != nullptr && next()->identify(address, id, nbytes);
    }
    platform::lock_guard guard(mutex_);
    map_entry* entry = map_.find(static_cast<std::uint64_t>(p - seg_->base()));
    if (entry == nullptr || !publish(*entry)) {
        return false;
    }
    id = {entry->key, entry->serial, entry->record, 0};
    if (entry->nbytes >= tlsf::page_block_threshold) {
        id.colour = table_.at(entry->record).colour;
    }
    nbytes = entry->nbytes;
    return true;
}

bool heap::retain(const void* address) noexcept {
    const auto* p = static_cast<const std::byte*>(address);
    if (p < seg_->base() || p >= seg_->base() + seg_->mapped_size()) {
        return next() != nullptr && next()->retain(address);
    }
    platform::lock_guard guard(mutex_);
    map_entry* entry = map_.find(static_cast<std::uint64_t>(p - seg_->base()));
    if (entry == nullptr || !publish(*entry)) {
        return false;
    }
    ++entry->references;
    return true;
}

error heap::damaged() const {
    return {errc::corruption, 0,
            std::string("the arena's metadata is damaged: ") + poison_cause_.load(), seg_->path()};
}

bool heap::can_send() const noexcept {
    return (seg_->kind() == segment_kind::file || seg_->kind() == segment_kind::shared) &&
           seg_->writable() && !inherited_;
}

result<token> heap::send(const void* address, std::uint32_t readers) {
    if (!can_send()) {
        return error{
            errc::unsupported, 0,
            "only arrays of a file or a shared segment that is open for writing can be sent "
            "by reference",
            seg_->path()};
    }
    if (!usable()) {
        return error{errc::read_only, 0, "this process cannot write to the arena", seg_->path()};
    }
    const auto key =
        static_cast<std::uint64_t>(static_cast<const std::byte*>(address) - seg_->base());
    token sent;
    for (const bool looked : {false, true}) {
        {
            platform::lock_guard guard(mutex_);
            map_entry* entry = map_.find(key);
            if (entry == nullptr) {
                return error{errc::invalid, 0, "not a live block of this arena", seg_->path()};
            }
            if (!lock_shared()) {
                return not_locked();
            }
            publish_locked(*entry);
            sent = issue_token(entry->record, readers);
            const bool ok = settle();
            unlock_shared();
            if (!ok) {
                return damaged();
            }
        }
        if (sent.index != tlsf::nil) {
            return sent;
        }
        if (!looked) {
            (void)expire_tokens(default_grace_ms);
        }
    }
    return error{errc::no_memory, 0,
                 "all " + std::to_string(seg_->geo().transit_count) +
                     " messages that the arena can have on the way are; receive some",
                 seg_->path()};
}

// Under the slot lock. The token holds the block from here on.
token heap::issue_token(std::uint32_t record, std::uint32_t readers) noexcept {
    segment::control_page& c = seg_->control();
    auto& undo = table_.undo();
    undo.note(&c.transit_free);
    std::uint32_t index = c.transit_free;
    if (index != tlsf::nil) {
        if (index >= tokens_in_use() || token_at(index).state != 0) {
            (void)table_.trap();
            return {};
        }
        undo.note(&token_at(index));
        c.transit_free = token_at(index).record;
    } else {
        if (c.transit_bump >= seg_->geo().transit_count) {
            return {};
        }
        index = c.transit_bump++;
        undo.note(&token_at(index));
    }
    __atomic_store_n(&c.in_transit, c.in_transit + 1, __ATOMIC_RELAXED);
    tlsf::block_record& r = table_.at(record, tlsf::block_state::allocated);
    undo.note(&r);
    ++r.holders;
    table_.note_counters();
    // No two tokens of a session have the same.
    __atomic_store_n(&c.serial, c.serial + 1, __ATOMIC_RELAXED);
    segment::transit_token& t = token_at(index);
    t.serial = c.session ^ c.serial;
    t.noticed = 0;
    t.record = record;
    t.sender = seg_->owner_word();
    t.state = in_flight;
    t.readers = readers;
    return {index, t.serial};
}

// Under the slot lock: the token is unused again; its hold is the caller's.
void heap::retire_token(std::uint32_t index) noexcept {
    segment::control_page& c = seg_->control();
    segment::transit_token& t = token_at(index);
    if constexpr (!base::planted(base::bug::token_not_noted)) {
        table_.undo().note(&t);
    }
    table_.undo().note(&c.transit_free);
    t.state = 0;
    t.record = c.transit_free;
    c.transit_free = index;
    __atomic_store_n(&c.in_transit, c.in_transit - 1, __ATOMIC_RELAXED);
}

// Under the slot lock: the token's hold on its block ends.
void heap::drop_hold(std::uint32_t record, std::uint64_t now) noexcept {
    tlsf::block_record& r = table_.at(record, tlsf::block_state::allocated);
    if (r.holders == 0) {
        (void)table_.trap();
        return;
    }
    table_.undo().note(&r);
    if (--r.holders == 0) {
        tlsf_.release(record, r.size, now);
    }
}

// Under both locks: whether the message is the token's, and a hold is left in it.
bool heap::redeem(const block_id& id, const token& ticket) noexcept {
    if (ticket.index >= tokens_in_use()) {
        return false;
    }
    segment::transit_token& t = token_at(ticket.index);
    if (t.state != in_flight || t.serial != ticket.serial || t.record != id.record) {
        return false;
    }
    if (t.readers > 1) {
        table_.undo().note(&t);
        --t.readers;
        return false;  // the token keeps its hold for the other readers
    }
    retire_token(ticket.index);
    return true;
}

result<void*> heap::attach(const block_id& id, const token& ticket, std::uint64_t& nbytes) {
    if (!usable()) {
        return error{errc::read_only, 0, "this process cannot write to the arena", seg_->path()};
    }
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
    bool fresh = id.record < seg_->control().record_bump;
    std::uint64_t key = 0;
    if (fresh) {
        tlsf::block_record& r = table_.at(id.record);
        const std::uint64_t shift = r.colour * std::uint64_t{1024};
        key = r.offset + shift;
        fresh = r.state == tlsf::block_state::allocated && r.serial == id.serial &&
                key == id.offset && r.holders != 0 &&
                base::range_within(shift, r.payload, 0, r.size);
        nbytes = r.payload;
    }
    map_entry* known = fresh ? map_.find(key) : nullptr;
    if (fresh) {
        const bool took_over = redeem(id, ticket);
        if (known == nullptr) {
            tlsf::block_record& r = table_.at(id.record, tlsf::block_state::allocated);
            hold(id.record, r);
        }
        if (took_over) {
            drop_hold(id.record, now);
        }
    }
    const bool ok = settle();
    unlock_shared();
    if (!ok) {
        return damaged();
    }
    if (!fresh) {
        return error{errc::stale, 0,
                     "the array that the reference names is gone: nobody held it any more",
                     seg_->path()};
    }
    if (known != nullptr) {
        ++known->references;
    } else {
        map_.insert({key, nbytes, id.serial, id.record, 1, 0, true, 0});
    }
    return static_cast<void*>(seg_->base() + key);
}

// Notices tokens whose sender has gone, and frees what has waited `grace`
// milliseconds since it was noticed. Returns how many tokens fell.
std::uint64_t heap::expire_tokens(std::uint64_t grace) noexcept {
    if (seg_->is_solo() || !usable() || inherited_ ||
        __atomic_load_n(&seg_->control().in_transit, __ATOMIC_RELAXED) == 0) {
        return 0;
    }
    // Asking the kernel who lives takes half a microsecond: once for each slot.
    enum : std::uint8_t { unknown, living, gone };
    std::array<std::uint8_t, segment::max_slots> state{};
    const auto is_gone = [&](std::uint32_t sender) {
        const std::uint32_t slot = segment::slot_lock::slot_of(sender);
        if (slot >= seg_->geo().slot_count ||
            segment::slot_lock::make_word(slot, seg_->slot_at(slot).incarnation) != sender) {
            return true;  // the slot has a new owner
        }
        if (state[slot] == unknown) {
            state[slot] = seg_->is_alive(slot) ? living : gone;
        }
        return state[slot] == gone;
    };
    std::uint64_t fallen = 0;
    platform::lock_guard guard(mutex_);
    if (!lock_shared()) {
        return 0;
    }
    const std::uint64_t now = platform::monotonic_milliseconds();
    const std::uint32_t tokens = tokens_in_use();
    for (std::uint32_t index = 0; index < tokens && !poisoned_.load(std::memory_order_relaxed);
         ++index) {
        segment::transit_token& t = token_at(index);
        if (t.state != in_flight) {
            continue;
        }
        if (t.noticed == 0 && is_gone(t.sender)) {
            t.noticed = std::max<std::uint64_t>(now, 1);
        }
        // Another process may have noticed it later than this one looked at the clock.
        if (t.noticed != 0 && std::max(now, t.noticed) - t.noticed >= grace) {
            const std::uint32_t record = t.record;
            retire_token(index);
            drop_hold(record, now);
            if (!settle()) {
                break;
            }
            ++fallen;
        }
    }
    unlock_shared();
    return fallen;
}

}  // namespace ndarena::heap
