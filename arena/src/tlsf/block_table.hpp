// The dense table of block records, apart from the data they describe.
//
// Records are found by index through a two-level radix directory of chunks;
// chunks never move, so their offsets are cached in process memory. Every
// index and offset that is read from the segment is checked before it is
// followed: a bad one yields the trap record in process memory and raises
// `is_corrupt`, and the operation is rolled back by whoever started it.
#pragma once

#include "tlsf/size_class.hpp"

#include "journal/journal.hpp"

#include <memory>

namespace ndarena::tlsf {

using segment::block_record;
using segment::block_state;
using segment::control_page;
using segment::nil;
using segment::block_flag::holes;
using segment::block_flag::queued;

class block_table {
public:
    // `cache` has room for segment::max_chunks offsets, zero at first.
    block_table(std::byte* base, std::uint64_t size, const segment::geometry& geo,
                std::uint64_t* cache) noexcept;

    control_page& control() const noexcept { return *control_; }
    journal::undo_log& undo() noexcept { return undo_; }
    const journal::undo_log& undo() const noexcept { return undo_; }
    const segment::geometry& geo() const noexcept { return geo_; }
    std::byte* base() const noexcept { return base_; }

    // The record, or the trap if the index is out of range.
    block_record& at(std::uint32_t index) noexcept {
        const std::uint32_t chunk = index >> geo_.chunk_shift;
        if (__builtin_expect(index >= control_->record_bump || chunk >= segment::max_chunks, 0)) {
            return trap();
        }
        std::uint64_t offset = cache_[chunk];
        if (__builtin_expect(offset == 0, 0) && (offset = load_chunk(chunk)) == 0) {
            return trap();
        }
        return reinterpret_cast<block_record*>(base_ +
                                               offset)[index & (geo_.records_per_chunk() - 1)];
    }
    // The record if it describes a block inside the committed data area in the
    // given state, else the trap.
    block_record& at(std::uint32_t index, block_state state) noexcept {
        block_record& r = at(index);
        if (r.state != state || !is_placed(r) || r.payload > r.size) {
            return trap();
        }
        return r;
    }
    // The same in any state but unused.
    block_record& block_at(std::uint32_t index) noexcept {
        block_record& r = at(index);
        if (r.state == block_state::unused || !is_placed(r)) {
            return trap();
        }
        return r;
    }

    // Takes an unused record, its state noted, its links nil; nil if none is
    // left (callers keep a reserve). `give` puts one back.
    std::uint32_t take() noexcept;
    void give(std::uint32_t index) noexcept;
    std::uint64_t unused_count() const noexcept;

    // Word of the ownership row of `slot` that holds the bit of `index`.
    std::uint64_t* row_word(std::uint32_t slot, std::uint32_t index) noexcept;
    static std::uint64_t row_bit(std::uint32_t index) noexcept {
        return std::uint64_t{1} << (index % 64);
    }

    // Links chunk number `chunk_count` (a zeroed metadata block at `offset`).
    // False: the radix page for it is missing, see `missing_radix_page`.
    bool add_chunk(std::uint64_t offset) noexcept;
    bool missing_radix_page() const noexcept;
    void add_radix_page(std::uint64_t offset) noexcept;

    // Notes the counters and ends that nearly every operation changes.
    void note_counters() noexcept { undo_.note(&control_->serial); }

    // Undoes the operation under way, or one that a dead process left. Only
    // volatile metadata is ever noted: what lies before it, locks included, is
    // not written.
    void roll_back() noexcept {
        undo_.roll_back(geo_.control_offset() + offsetof(control_page, capacity),
                        control_->watermark);
    }

    bool is_corrupt() const noexcept { return corrupt_; }
    void clear_corrupt() noexcept { corrupt_ = false; }
    [[gnu::cold, gnu::noinline]] block_record& trap() noexcept;
    bool is_placed(const block_record& r) const noexcept {
        return base::range_within(r.offset, r.size, first_data_, control_->watermark) &&
               r.size != 0 && ((r.offset | r.size) & (segment::granule - 1)) == 0;
    }
    void forget_cache() noexcept;

    // Calls f(offset, size) for every chunk and radix page in the data area.
    template <class F>
    void for_each_table(F&& f) noexcept {
        for (std::uint32_t chunk = 0; chunk < control_->chunk_count && chunk < segment::max_chunks;
             ++chunk) {
            const std::uint64_t offset = cache_[chunk] != 0 ? cache_[chunk] : load_chunk(chunk);
            if (offset != 0) {
                f(offset, geo_.chunk_bytes());
            }
        }
        const auto* top = reinterpret_cast<const std::uint64_t*>(base_ + geo_.radix_offset());
        for (std::uint64_t page = 1; page < segment::radix_fanout; ++page) {
            if (top[page] != 0) {
                f(top[page], segment::format_page);
            }
        }
    }

    // Called when a table page is met for the first time, before it is read
    // (fork children must see it shared). The hook may make system calls.
    using page_hook = void (*)(void* self, std::uint64_t offset, std::uint64_t size) noexcept;
    void set_page_hook(page_hook hook, void* self) noexcept {
        hook_ = hook;
        hook_self_ = self;
    }

private:
    std::uint64_t load_chunk(std::uint32_t chunk) noexcept;
    std::uint64_t* radix_slot(std::uint32_t chunk) noexcept;

    std::byte* base_;
    segment::geometry geo_;
    std::uint64_t first_data_;  // geo_.data_offset(), asked for at every record
    control_page* control_;
    journal::undo_log undo_;
    std::uint64_t* cache_;
    block_record trap_{};
    bool corrupt_ = false;
    page_hook hook_ = nullptr;
    void* hook_self_ = nullptr;
};

}  // namespace ndarena::tlsf
