#include "tlsf/tlsf.hpp"

#include <algorithm>

namespace ndarena::tlsf {
namespace {

// Blocks looked at in one list before the search moves on; keeps it O(1) and
// finds the block that an identical request has just given back.
constexpr int scan_limit = 4;
constexpr int thorough_scan_limit = 1024;  // before a request is refused

std::uint64_t minus(std::uint64_t a, std::uint64_t b) noexcept { return a > b ? a - b : 0; }

}  // namespace

void allocator::format() noexcept {
    control_page& c = table_.control();
    const auto& geo = table_.geo();
    auto* radix = reinterpret_cast<std::uint64_t*>(table_.base() + geo.radix_offset());
    std::fill_n(radix, 2 * segment::radix_fanout, 0);
    radix[segment::radix_fanout] = geo.data_offset();
    c.watermark = geo.data_offset() + geo.chunk_bytes();
    c.chunk_count = 1;
    c.record_bump = 1;
    c.record_free = nil;
    c.record_spare = 0;
    c.first_block = c.last_block = 0;
    c.allocated = c.peak_allocated = 0;
    c.allocated_count = c.free_count = 0;
    c.metadata = geo.chunk_bytes();
    table_.forget_cache();
    std::fill_n(table_.base() + geo.data_offset(), geo.chunk_bytes(), std::byte{0});
    lists_.reset();
    block_record& chunk = table_.at(0);
    chunk.offset = geo.data_offset();
    chunk.size = geo.chunk_bytes();
    chunk.payload = geo.chunk_bytes();
    chunk.prev_physical = chunk.next_physical = nil;
    chunk.prev_free = chunk.next_free = nil;
    chunk.prev_purge = chunk.next_purge = nil;
    chunk.state = block_state::metadata;
}

void allocator::count(std::int64_t allocated_bytes, std::int32_t allocated_blocks,
                      std::int32_t free_blocks) noexcept {
    control_page& c = table_.control();
    table_.note_counters();
    // In one piece: people may read it without the lock.
    __atomic_store_n(&c.allocated, c.allocated + static_cast<std::uint64_t>(allocated_bytes),
                     __ATOMIC_RELAXED);
    c.peak_allocated = std::max(c.peak_allocated, c.allocated);
    c.allocated_count += static_cast<std::uint32_t>(allocated_blocks);
    c.free_count += static_cast<std::uint32_t>(free_blocks);
}

bool allocator::fits(const block_record& r, std::uint64_t size,
                     std::uint64_t alignment) const noexcept {
    const std::uint64_t start = align_offset(r.offset, alignment);
    return start - r.offset <= r.size && size <= r.size - (start - r.offset);
}

// Passes over the free block at the end: it can still grow, so it comes last,
// as in Doug Lea's allocator ("wilderness").
std::uint32_t allocator::scan(size_class c, std::uint64_t size, std::uint64_t alignment,
                              int limit) noexcept {
    const std::uint32_t last = table_.control().last_block;
    std::uint32_t index = lists_.head(c);
    for (int i = 0; i < limit && index != nil; ++i) {
        const block_record& r = table_.at(index, block_state::free);
        if (index != last && fits(r, size, alignment)) {
            return index;
        }
        index = r.next_free;
    }
    return nil;
}

std::uint32_t allocator::search(std::uint64_t size, std::uint64_t alignment, int limit) noexcept {
    size_class c = class_of(size);
    std::uint32_t found = scan(c, size, alignment, limit);
    if (found != nil) {
        return found;
    }
    ++c.second;
    if (lists_.find_from(c)) {
        found = scan(c, size, alignment, limit);
        if (found != nil) {
            return found;
        }
    }
    if (alignment != segment::granule) {
        // Too few blocks start where they should: one class up any block does.
        c = class_that_holds(size + alignment - segment::granule);
        if (lists_.find_from(c) && (found = scan(c, size, alignment, limit)) != nil) {
            return found;
        }
    }
    const std::uint32_t last = table_.control().last_block;
    const block_record& r = table_.block_at(last);
    return r.state == block_state::free && fits(r, size, alignment) ? last : nil;
}

// Enters a record into the chain of physical neighbours.
void allocator::link_after(std::uint32_t index, block_record& r, std::uint32_t left_index,
                           block_record& left) noexcept {
    auto& undo = table_.undo();
    const std::uint32_t right_index = left.next_physical;
    r.prev_physical = left_index;
    r.next_physical = right_index;
    undo.set(left.next_physical, index);
    if (right_index != nil) {
        undo.set(table_.block_at(right_index).prev_physical, index);
    } else {
        undo.set(table_.control().last_block, index);
    }
}

void allocator::link_before(std::uint32_t index, block_record& r, std::uint32_t right_index,
                            block_record& right) noexcept {
    auto& undo = table_.undo();
    const std::uint32_t left_index = right.prev_physical;
    r.prev_physical = left_index;
    r.next_physical = right_index;
    undo.set(right.prev_physical, index);
    if (left_index != nil) {
        undo.set(table_.block_at(left_index).next_physical, index);
    } else {
        undo.set(table_.control().first_block, index);
    }
}

// A free block changes its extent; it moves to another list only if its class
// changes, and keeps its place in the purge queue.
void allocator::reshape_free(std::uint32_t index, block_record& r, std::uint64_t offset,
                             std::uint64_t size, std::uint64_t dirty, std::uint64_t now) noexcept {
    auto& undo = table_.undo();
    const bool moves = !(class_of(size) == class_of(r.size));
    if (moves) {
        lists_.remove(index, r);
    }
    if constexpr (!base::planted(base::bug::split_not_noted)) {
        undo.note(&r);
    }
    r.offset = offset;
    r.size = size;
    if (moves) {
        lists_.insert(index, r);
    }
    lists_.set_dirty(index, r, dirty, now);
}

// A record that is on no list becomes a free block.
void allocator::become_free(std::uint32_t index, block_record& r, std::uint64_t dirty,
                            bool with_holes, std::uint64_t now) noexcept {
    table_.undo().note(&r);
    r.holders = 0;
    r.state = block_state::free;
    r.flags = with_holes ? holes : std::uint8_t{0};
    r.colour = 0;
    r.payload = 0;
    lists_.insert(index, r);
    lists_.set_dirty(index, r, dirty, now);
}

//   [-------- free --------]  =>  [gap][ allocated ][tail]
// The free record stays with what is left over, so that an allocation from a
// large block costs one new record and no move between lists.
placement allocator::carve(std::uint32_t index, block_record& r, std::uint64_t size,
                           std::uint64_t alignment, std::uint64_t now) noexcept {
    auto& undo = table_.undo();
    placement got;
    got.offset = align_offset(r.offset, alignment);
    got.size = size;
    got.has_holes = (r.flags & holes) != 0;
    const std::uint64_t gap = got.offset - r.offset;
    const std::uint64_t tail = r.size - gap - size;
    const std::uint64_t dirty = r.payload;
    got.dirty = std::min(minus(dirty, gap), size);
    std::int32_t new_free = 0;

    if (gap == 0 && tail == 0) {
        lists_.set_dirty(index, r, 0, now);
        lists_.remove(index, r);
        got.record = index;
        new_free = -1;
        undo.note(&r);
    } else {
        got.record = table_.take();
        if (got.record == nil) {
            return got;
        }
        block_record& a = table_.at(got.record);
        a.offset = got.offset;
        a.size = size;
        a.payload = 0;  // not what the record held in a former life
        if (gap == 0) {
            link_before(got.record, a, index, r);
            reshape_free(index, r, got.offset + size, tail, minus(dirty, size), now);
        } else {
            link_after(got.record, a, index, r);
            const bool keeps_holes = got.has_holes;
            reshape_free(index, r, r.offset, gap, std::min(dirty, gap), now);
            if (tail != 0) {
                const std::uint32_t rest = table_.take();
                if (rest == nil) {
                    (void)table_.trap();  // callers keep a reserve of records
                    return got;
                }
                block_record& t = table_.at(rest);
                t.offset = got.offset + size;
                t.size = tail;
                t.payload = 0;
                t.serial = now;
                link_after(rest, t, got.record, a);
                become_free(rest, t, minus(dirty, gap + size), keeps_holes, now);
                new_free = 1;
            }
        }
    }
    block_record& a = table_.at(got.record);
    a.state = block_state::allocated;
    a.flags = 0;
    a.holders = 0;
    count(static_cast<std::int64_t>(size), 1, new_free);
    return got;
}

placement allocator::allocate(std::uint64_t size, std::uint64_t alignment, std::uint64_t now,
                              bool thorough) noexcept {
    const std::uint32_t index =
        search(size, alignment, thorough ? thorough_scan_limit : scan_limit);
    if (index == nil) {
        return {};
    }
    block_record& r = table_.at(index, block_state::free);
    return carve(index, r, size, alignment, now);
}

// [allocated][this][right: free]  =>  [allocated][------- right -------]
// What a block was carved out of takes it back: mostly it stays on its list
// and in the purge queue where it is.
std::int32_t allocator::merge_into_right(std::uint32_t index, block_record& r, std::uint64_t dirty,
                                         bool with_holes, std::uint64_t now) noexcept {
    auto& undo = table_.undo();
    const std::uint32_t right_index = r.next_physical;
    const std::uint32_t left_index = r.prev_physical;
    const std::uint64_t offset = r.offset;
    const std::uint64_t size = r.size;
    block_record& right = table_.at(right_index, block_state::free);
    const bool waited = (right.flags & queued) != 0;
    // The merged block waits for purging as long as its largest dirty part.
    const std::uint64_t stamp = waited && right.payload > dirty ? right.serial : now;
    if (right.payload != 0) {
        dirty = size + right.payload;
    }
    if (left_index != nil) {
        undo.set(table_.block_at(left_index).next_physical, right_index);
    } else {
        undo.set(table_.control().first_block, right_index);
    }
    undo.note(&right);
    right.prev_physical = left_index;
    if (with_holes) {
        right.flags |= holes;
    }
    table_.give(index);
    reshape_free(right_index, right, offset, size + right.size, dirty, stamp);
    if (waited && right.serial != stamp) {
        lists_.requeue(right_index, right, stamp);
    }
    return 0;
}

// [left: free][this][right: free]  =>  [------------ left ------------]
// One list operation on the outcome, whatever was merged. `r` is on no list.
// Returns by how much the number of free blocks changed.
std::int32_t allocator::merge_free(std::uint32_t index, block_record& r, std::uint64_t dirty,
                                   bool with_holes, std::uint64_t now) noexcept {
    auto& undo = table_.undo();
    std::int32_t free_blocks = 1;
    std::uint64_t size = r.size;
    // The merged block waits for purging as long as its largest dirty part.
    std::uint64_t largest_part = dirty;
    std::uint64_t stamp = now;
    std::uint32_t beyond = r.next_physical;
    const bool left_is_free =
        r.prev_physical != nil && table_.block_at(r.prev_physical).state == block_state::free;
    const bool right_is_free = beyond != nil && table_.block_at(beyond).state == block_state::free;
    if (right_is_free && !left_is_free) {
        return merge_into_right(index, r, dirty, with_holes, now);
    }
    if (right_is_free) {
        const std::uint32_t right_index = beyond;
        block_record& right = table_.at(right_index, block_state::free);
        if (right.payload != 0) {
            dirty = size + right.payload;
        }
        if ((right.flags & queued) != 0) {
            if (right.payload > largest_part) {
                largest_part = right.payload;
                stamp = right.serial;
            }
            lists_.dequeue(right);
        }
        with_holes = with_holes || (right.flags & holes) != 0;
        size += right.size;
        beyond = right.next_physical;
        lists_.remove(right_index, right);
        table_.give(right_index);
        --free_blocks;
    }
    std::uint32_t survivor = index;
    if (left_is_free) {
        survivor = r.prev_physical;
        block_record& left = table_.at(survivor, block_state::free);
        dirty = dirty != 0 ? left.size + dirty : left.payload;
        if ((left.flags & queued) != 0 && left.payload > largest_part) {
            stamp = left.serial;
        }
        if (with_holes && (left.flags & holes) == 0) {
            undo.note(&left.flags);
            left.flags |= holes;
        }
        undo.set(left.next_physical, beyond);
        table_.give(index);
        const bool waited = (left.flags & queued) != 0;
        reshape_free(survivor, left, left.offset, left.size + size, dirty, stamp);
        if (waited && left.serial != stamp) {
            lists_.requeue(survivor, left, stamp);
        }
        --free_blocks;
    } else {
        if (beyond != r.next_physical) {
            undo.set(r.next_physical, beyond);
        }
        if (size != r.size) {
            undo.set(r.size, size);
        }
        become_free(index, r, dirty, with_holes, stamp);
    }
    if (free_blocks != 1) {
        if (beyond != nil) {
            undo.set(table_.block_at(beyond).prev_physical, survivor);
        } else {
            undo.set(table_.control().last_block, survivor);
        }
    }
    return free_blocks;
}

void allocator::release(std::uint32_t index, std::uint64_t dirty, std::uint64_t now) noexcept {
    block_record& r = table_.block_at(index);
    const bool was_allocated = r.state == block_state::allocated;
    if (r.state == block_state::metadata) {
        table_.undo().set(table_.control().metadata, table_.control().metadata - r.size);
    }
    const auto freed = static_cast<std::int64_t>(r.size);
    const bool with_holes = (r.flags & holes) != 0;
    const std::int32_t free_blocks = merge_free(index, r, dirty, with_holes, now);
    count(was_allocated ? -freed : 0, was_allocated ? -1 : 0, free_blocks);
}

bool allocator::resize(std::uint32_t index, std::uint64_t size, std::uint64_t now,
                       placement& grown) noexcept {
    auto& undo = table_.undo();
    block_record& r = table_.at(index, block_state::allocated);
    grown = {index, r.offset, size, 0, false};
    if (size == r.size) {
        return true;
    }
    const std::uint32_t right_index = r.next_physical;
    block_record* right = nullptr;
    if (right_index != nil) {
        block_record& candidate = table_.block_at(right_index);
        right = candidate.state == block_state::free ? &candidate : nullptr;
    }
    const auto change = static_cast<std::int64_t>(size) - static_cast<std::int64_t>(r.size);
    if (size > r.size) {
        const std::uint64_t more = size - r.size;
        if (right == nullptr || right->size < more) {
            return false;
        }
        grown.has_holes = (right->flags & holes) != 0;
        if (grown.has_holes) {
            undo.note(&r.flags);
            r.flags |= holes;  // until the new part is committed
        }
        const std::uint64_t dirty = right->payload;
        grown.dirty = std::min(dirty, more);
        std::int32_t free_blocks = 0;
        if (right->size == more) {
            lists_.set_dirty(right_index, *right, 0, now);
            lists_.remove(right_index, *right);
            const std::uint32_t beyond = right->next_physical;
            undo.set(r.next_physical, beyond);
            if (beyond != nil) {
                undo.set(table_.block_at(beyond).prev_physical, index);
            } else {
                undo.set(table_.control().last_block, index);
            }
            table_.give(right_index);
            free_blocks = -1;
        } else {
            reshape_free(right_index, *right, right->offset + more, right->size - more,
                         minus(dirty, more), now);
        }
        undo.set(r.size, size);
        count(change, 0, free_blocks);
        return true;
    }
    // Shrink: the tail becomes a free block and melts into a free neighbour.
    const std::uint32_t rest = table_.take();
    if (rest == nil) {
        return false;
    }
    block_record& t = table_.at(rest);
    t.offset = r.offset + size;
    t.size = r.size - size;
    t.payload = 0;
    t.serial = now;
    link_after(rest, t, index, r);
    undo.set(r.size, size);
    count(change, 0, merge_free(rest, t, t.size, (r.flags & holes) != 0, now));
    return true;
}

void allocator::extend(std::uint64_t watermark, bool dirty, std::uint64_t now) noexcept {
    control_page& c = table_.control();
    auto& undo = table_.undo();
    const std::uint64_t old = c.watermark;
    const std::uint64_t more = watermark - old;
    const std::uint32_t last_index = c.last_block;
    block_record& last = table_.block_at(last_index);
    undo.set(c.watermark, watermark);
    if (last.state == block_state::free) {
        reshape_free(last_index, last, last.offset, last.size + more,
                     dirty ? last.size + more : last.payload, now);
        return;
    }
    const std::uint32_t index = table_.take();
    if (index == nil) {
        (void)table_.trap();
        return;
    }
    block_record& r = table_.at(index);
    r.offset = old;
    r.size = more;
    r.payload = 0;
    r.serial = now;
    link_after(index, r, last_index, last);
    become_free(index, r, dirty ? more : 0, false, now);
    count(0, 0, 1);
}

std::uint64_t allocator::shortfall(std::uint64_t size, std::uint64_t alignment) noexcept {
    const control_page& c = table_.control();
    std::uint64_t start = c.watermark;
    const block_record& last = table_.block_at(c.last_block);
    if (last.state == block_state::free) {
        start = last.offset;
    }
    const std::uint64_t end = align_offset(start, alignment) + size;
    return minus(end, c.watermark);
}

void allocator::make_metadata(std::uint32_t index) noexcept {
    block_record& r = table_.at(index, block_state::allocated);
    table_.undo().note(&r.holders);
    r.state = block_state::metadata;
    r.holders = 0;
    table_.undo().set(table_.control().metadata, table_.control().metadata + r.size);
    count(-static_cast<std::int64_t>(r.size), -1, 0);
}

std::uint64_t allocator::largest_free() noexcept {
    // The highest non-empty class, whose list is scanned within a bound.
    const control_page& c = table_.control();
    if (c.first_level == 0) {
        return 0;
    }
    size_class cls{base::floor_log2(c.first_level), 0};
    if (cls.first >= segment::first_level_count || c.second_level[cls.first] == 0) {
        return 0;
    }
    cls.second = base::floor_log2(c.second_level[cls.first]);
    std::uint64_t largest = 0;
    std::uint32_t index = lists_.head(cls);
    for (int i = 0; i < 1024 && index != nil; ++i) {
        const block_record& r = table_.at(index, block_state::free);
        largest = std::max(largest, r.size);
        index = r.next_free;
    }
    return largest;
}

}  // namespace ndarena::tlsf
