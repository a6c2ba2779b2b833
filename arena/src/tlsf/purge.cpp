// Free blocks on their way to giving their pages back: off the lists, held by
// the process that does it, free again afterwards.
#include "tlsf/tlsf.hpp"

namespace ndarena::tlsf {

std::uint32_t allocator::take_for_purge(std::uint64_t freed_before) noexcept {
    auto& undo = table_.undo();
    const std::uint32_t index = table_.control().purge_first;
    if (index == nil) {
        return nil;
    }
    block_record& r = table_.at(index, block_state::free);
    if ((r.flags & queued) == 0 || r.prev_purge != nil) {
        (void)table_.trap();  // it would stay the first, and be given back for ever
    }
    if (table_.is_corrupt() || r.serial > freed_before) {
        return nil;
    }
    const std::uint64_t dirty = r.payload;
    lists_.set_dirty(index, r, 0, 0);
    undo.set(r.payload, dirty);  // what finish_purge gives back if it is not punched
    lists_.remove(index, r);
    undo.note(&r);
    r.state = block_state::punching;
    count(0, 0, -1);
    return index;
}

std::uint32_t allocator::take_tail() noexcept {
    auto& undo = table_.undo();
    const std::uint32_t index = table_.control().last_block;
    block_record& r = table_.block_at(index);
    if (table_.is_corrupt() || r.state != block_state::free || (r.flags & holes) != 0 ||
        r.size < free_lists::purge_unit) {
        return nil;
    }
    lists_.set_dirty(index, r, 0, 0);
    lists_.remove(index, r);
    undo.note(&r);
    r.payload = r.size;
    r.state = block_state::punching;
    count(0, 0, -1);
    return index;
}

void allocator::finish_purge(std::uint32_t index, bool punched, std::uint64_t now) noexcept {
    block_record& r = table_.at(index, block_state::punching);
    if (punched && (r.flags & holes) == 0 && !base::planted(base::bug::holes_unmarked)) {
        table_.undo().note(&r.flags);
        r.flags |= holes;
    }
    release(index, punched ? 0 : r.payload, now);
}

}  // namespace ndarena::tlsf
