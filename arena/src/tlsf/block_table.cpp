#include "tlsf/tlsf.hpp"

#include <algorithm>

namespace ndarena::tlsf {

block_table::block_table(std::byte* base, std::uint64_t size, const segment::geometry& geo,
                         std::uint64_t* cache) noexcept
    : base_(base),
      geo_(geo),
      first_data_(geo.data_offset()),
      control_(reinterpret_cast<control_page*>(base + geo.control_offset())),
      undo_(base, size, reinterpret_cast<segment::undo_page*>(base + geo.undo_offset())),
      cache_(cache) {}

// The word of the radix directory that holds the offset of a chunk; null if
// its page is missing or misplaced.
std::uint64_t* block_table::radix_slot(std::uint32_t chunk) noexcept {
    auto* top = reinterpret_cast<std::uint64_t*>(base_ + geo_.radix_offset());
    const std::uint32_t page = chunk >> segment::radix_shift;
    if (page >= segment::radix_fanout) {
        return nullptr;
    }
    // The first page lies beside the top page; the top's word 0 says so.
    const std::uint64_t at = page == 0 ? geo_.radix_offset() + segment::format_page : top[page];
    if (at % sizeof(std::uint64_t) != 0 ||
        !base::range_within(at, segment::format_page, geo_.radix_offset(), control_->watermark)) {
        return nullptr;
    }
    if (hook_ != nullptr && page != 0) {
        hook_(hook_self_, at, segment::format_page);
    }
    return reinterpret_cast<std::uint64_t*>(base_ + at) + (chunk & (segment::radix_fanout - 1));
}

std::uint64_t block_table::load_chunk(std::uint32_t chunk) noexcept {
    if (chunk >= control_->chunk_count || chunk >= segment::max_chunks) {
        return 0;
    }
    const std::uint64_t* slot = radix_slot(chunk);
    if (slot == nullptr) {
        return 0;
    }
    const std::uint64_t offset = *slot;
    if (offset % segment::granule != 0 ||
        !base::range_within(offset, geo_.chunk_bytes(), geo_.data_offset(), control_->watermark)) {
        return 0;
    }
    if (hook_ != nullptr) {
        hook_(hook_self_, offset, geo_.chunk_bytes());
    }
    cache_[chunk] = offset;
    return offset;
}

block_record& block_table::trap() noexcept {
    corrupt_ = true;
    trap_ = block_record{};
    trap_.prev_physical = trap_.next_physical = nil;
    trap_.prev_free = trap_.next_free = nil;
    trap_.prev_purge = trap_.next_purge = nil;
    return trap_;
}

void block_table::forget_cache() noexcept {
    const std::uint64_t known = std::min<std::uint64_t>(control_->chunk_count, segment::max_chunks);
    std::fill_n(cache_, known, 0);
}

std::uint64_t block_table::unused_count() const noexcept {
    const std::uint64_t room =
        (std::uint64_t{control_->chunk_count} << geo_.chunk_shift) - control_->record_bump;
    return room + control_->record_spare;
}

std::uint32_t block_table::take() noexcept {
    control_page& c = *control_;
    std::uint32_t index = c.record_free;
    note_counters();
    if (index != nil) {
        block_record& r = at(index);
        if (r.state != block_state::unused) {
            (void)trap();
            return nil;
        }
        undo_.note(&r);  // the list's link and the state, needed again when undone
        c.record_free = r.next_free;
        --c.record_spare;
        r.prev_free = r.next_free = nil;
    } else {
        if (c.record_bump >= std::uint64_t{c.chunk_count} << geo_.chunk_shift) {
            return nil;
        }
        index = c.record_bump;
        c.record_bump = index + 1;
        block_record& r = at(index);  // dead space: beyond the old bump
        r.prev_free = r.next_free = nil;
    }
    block_record& r = at(index);
    r.prev_physical = r.next_physical = nil;
    r.prev_purge = r.next_purge = nil;
    r.holders = 0;
    r.state = block_state::unused;
    r.flags = 0;
    r.colour = 0;
    r.reserved = 0;
    return index;
}

void block_table::give(std::uint32_t index) noexcept {
    control_page& c = *control_;
    block_record& r = at(index);
    note_counters();
    undo_.note(&r);
    r.holders = 0;
    r.state = block_state::unused;
    r.flags = 0;
    r.colour = 0;
    r.prev_free = nil;
    r.next_free = c.record_free;
    c.record_free = index;
    ++c.record_spare;
}

std::uint64_t* block_table::row_word(std::uint32_t slot, std::uint32_t index) noexcept {
    const std::uint32_t chunk = index >> geo_.chunk_shift;
    std::uint64_t offset = chunk < segment::max_chunks ? cache_[chunk] : 0;
    if (offset == 0 && (offset = load_chunk(chunk)) == 0) {
        (void)trap();
        return &trap_.serial;
    }
    const std::uint32_t within = index & (geo_.records_per_chunk() - 1);
    auto* rows = reinterpret_cast<std::uint64_t*>(
        base_ + offset + geo_.records_per_chunk() * sizeof(block_record) + slot * geo_.row_bytes());
    return rows + within / 64;
}

bool block_table::missing_radix_page() const noexcept {
    const std::uint32_t page = control_->chunk_count >> segment::radix_shift;
    const auto* top = reinterpret_cast<const std::uint64_t*>(base_ + geo_.radix_offset());
    return page != 0 && page < segment::radix_fanout && top[page] == 0;
}

void block_table::add_radix_page(std::uint64_t offset) noexcept {
    auto* top = reinterpret_cast<std::uint64_t*>(base_ + geo_.radix_offset());
    undo_.set(top[control_->chunk_count >> segment::radix_shift], offset);
}

bool block_table::add_chunk(std::uint64_t offset) noexcept {
    const std::uint32_t chunk = control_->chunk_count;
    std::uint64_t* slot = chunk < segment::max_chunks ? radix_slot(chunk) : nullptr;
    if (slot == nullptr) {
        return false;
    }
    undo_.set(*slot, offset);
    undo_.set(control_->chunk_count, chunk + 1);
    return true;
}

}  // namespace ndarena::tlsf
