#include "tlsf/tlsf.hpp"

#include <algorithm>

namespace ndarena::tlsf {

void free_lists::reset() noexcept {
    control_page& c = table_.control();
    std::fill_n(heads_, segment::first_level_count * segment::second_level_count, nil);
    c.first_level = 0;
    c.second_level.fill(0);
    c.purge_first = c.purge_last = nil;
    c.purge_bytes = 0;
}

void free_lists::insert(std::uint32_t index, block_record& r) noexcept {
    auto& undo = table_.undo();
    control_page& c = table_.control();
    const size_class cls = class_of(r.size);
    std::uint32_t& head = heads_[slot_of(cls)];
    const std::uint32_t old = head;
    undo.note(&r);
    r.prev_free = nil;
    r.next_free = old;
    if (old != nil) {
        block_record& next = table_.at(old, block_state::free);
        if constexpr (!base::planted(base::bug::free_links_not_noted)) {
            undo.note(&next);
        }
        next.prev_free = index;
    } else {
        std::uint32_t& bits = c.second_level[cls.first];
        if (bits == 0) {
            undo.set(c.first_level, c.first_level | std::uint64_t{1} << cls.first);
        }
        undo.set(bits, bits | 1U << cls.second);
    }
    undo.set(head, index);
}

void free_lists::remove(std::uint32_t index, block_record& r) noexcept {
    auto& undo = table_.undo();
    control_page& c = table_.control();
    const size_class cls = class_of(r.size);
    if (cls.first >= segment::first_level_count) {
        (void)table_.trap();
        return;
    }
    const std::uint32_t next = r.next_free;
    if (r.prev_free != nil) {
        undo.set(table_.at(r.prev_free, block_state::free).next_free, next);
    } else {
        std::uint32_t& head = heads_[slot_of(cls)];
        if (head != index) {
            (void)table_.trap();
            return;
        }
        undo.set(head, next);
        if (next == nil) {
            std::uint32_t& bits = c.second_level[cls.first];
            undo.set(bits, bits & ~(1U << cls.second));
            if (bits == 0) {
                undo.set(c.first_level, c.first_level & ~(std::uint64_t{1} << cls.first));
            }
        }
    }
    if (next != nil) {
        undo.set(table_.at(next, block_state::free).prev_free, r.prev_free);
    }
    undo.note(&r);
    r.prev_free = r.next_free = nil;
}

bool free_lists::find_from(size_class& cls) const noexcept {
    const control_page& c = table_.control();
    if (cls.first >= segment::first_level_count) {
        return false;
    }
    std::uint32_t second = 0;
    if (cls.second < segment::second_level_count) {
        second = c.second_level[cls.first] & (~std::uint32_t{0} << cls.second);
    }
    if (second == 0) {
        const std::uint64_t first =
            cls.first + 1 < 64 ? c.first_level & (~std::uint64_t{0} << (cls.first + 1)) : 0;
        if (first == 0) {
            return false;
        }
        cls.first = base::lowest_bit(first);
        if (cls.first >= segment::first_level_count) {
            return false;
        }
        second = c.second_level[cls.first];
        if (second == 0) {
            (void)table_.trap();
            return false;
        }
    }
    cls.second = base::lowest_bit(second);
    return true;
}

void free_lists::enqueue(std::uint32_t index, block_record& r, std::uint64_t now) noexcept {
    auto& undo = table_.undo();
    control_page& c = table_.control();
    const std::uint32_t last = c.purge_last;
    undo.note(&r);
    r.prev_purge = last;
    r.next_purge = nil;
    r.flags |= queued;
    r.serial = now;
    if (last != nil) {
        undo.set(table_.at(last, block_state::free).next_purge, index);
    }
    undo.note(&c.purge_first);
    c.purge_last = index;
    if (last == nil) {
        c.purge_first = index;
    }
    c.purge_bytes += r.payload;
}

void free_lists::dequeue(block_record& r) noexcept {
    auto& undo = table_.undo();
    control_page& c = table_.control();
    undo.note(&c.purge_first);
    if (r.prev_purge != nil) {
        undo.set(table_.at(r.prev_purge, block_state::free).next_purge, r.next_purge);
    } else {
        c.purge_first = r.next_purge;
    }
    if (r.next_purge != nil) {
        undo.set(table_.at(r.next_purge, block_state::free).prev_purge, r.prev_purge);
    } else {
        c.purge_last = r.prev_purge;
    }
    undo.note(&r);
    r.prev_purge = r.next_purge = nil;
    r.flags = static_cast<std::uint8_t>(r.flags & ~queued);
    c.purge_bytes -= r.payload;
}

void free_lists::requeue(std::uint32_t index, block_record& r, std::uint64_t now) noexcept {
    auto& undo = table_.undo();
    control_page& c = table_.control();
    undo.set(r.serial, now);
    const std::uint32_t next = r.next_purge;
    if (next == nil) {
        return;  // it is the last one already
    }
    undo.note(&c.purge_first);
    if (r.prev_purge != nil) {
        undo.set(table_.at(r.prev_purge, block_state::free).next_purge, next);
    } else {
        c.purge_first = next;
    }
    undo.set(table_.at(next, block_state::free).prev_purge, r.prev_purge);
    undo.set(table_.at(c.purge_last, block_state::free).next_purge, index);
    undo.note(&r);
    r.prev_purge = c.purge_last;
    r.next_purge = nil;
    c.purge_last = index;
}

void free_lists::set_dirty(std::uint32_t index, block_record& r, std::uint64_t dirty,
                           std::uint64_t now) noexcept {
    auto& undo = table_.undo();
    const bool is_queued = (r.flags & queued) != 0;
    if (dirty < purge_unit) {
        if (is_queued) {
            dequeue(r);
        }
        if (r.payload != dirty) {
            undo.set(r.payload, dirty);
        }
        return;
    }
    if (!is_queued) {
        undo.set(r.payload, dirty);
        enqueue(index, r, now);
    } else if (r.payload != dirty) {
        control_page& c = table_.control();
        undo.set(c.purge_bytes, c.purge_bytes - r.payload + dirty);
        undo.set(r.payload, dirty);
    }
}

}  // namespace ndarena::tlsf
