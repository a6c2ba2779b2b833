// Layer 4: two-level segregated fit over the block table.
//
// A pure algorithm on records: it knows no operating system, no locks and no
// processes, and never touches the data it manages. Every operation notes its
// changes in the undo log; the caller commits, or rolls back when
// `table().is_corrupt()`.
//
// Bounds: allocate, release and resize take constant time. Like every
// good-fit allocator TLSF has best fit's fragmentation bound, which is worse
// than half fit's; docs/performance.md has what real programs show.
#pragma once

#include "tlsf/block_table.hpp"
#include "tlsf/free_lists.hpp"
#include "tlsf/size_class.hpp"

#include <string>
#include <vector>

namespace ndarena::tlsf {

struct placement {
    std::uint32_t record = nil;
    std::uint64_t offset = 0;  // of the block
    std::uint64_t size = 0;
    std::uint64_t dirty = 0;  // bytes [0, dirty) of the block may be non-zero
    bool has_holes = false;   // commit the block before touching it
};

// A block that is in use when the table is made anew.
struct kept_block {
    std::uint64_t offset;
    std::uint64_t size;
    std::uint64_t payload;
    std::uint32_t names;  // 0: one of the arena's own tables
    std::uint8_t colour;
};

class allocator {
public:
    // Addresses are aligned, not offsets: `bias` is the address of the
    // segment's first byte modulo segment::max_alignment.
    allocator(block_table& table, std::uint64_t bias) noexcept
        : table_(table), lists_(table), bias_(bias) {}

    block_table& table() noexcept { return table_; }

    // Formats the volatile state: one chunk of records at the start of the
    // data area, which is committed up to its end. Not journaled.
    void format() noexcept;

    // After `format`: these blocks, in order of address, are in use, the rest up
    // to the watermark is free. Not journaled. False if they contradict each other.
    bool rebuild(const std::vector<kept_block>& blocks, const std::vector<std::uint64_t>& chunks,
                 const std::vector<std::uint64_t>& radix_pages, std::uint64_t watermark,
                 std::uint64_t now) noexcept;
    // Chunks that so many blocks, with so many gaps before them, need beyond the first.
    std::uint64_t tables_for(std::uint64_t blocks, std::uint64_t gaps) const noexcept;

    // The committed part ends at `watermark` from now on; [old, watermark) is
    // free and, unless `dirty`, zero.
    void extend(std::uint64_t watermark, bool dirty, std::uint64_t now) noexcept;
    // Bytes to extend by so that a request is sure to fit at the end.
    std::uint64_t shortfall(std::uint64_t size, std::uint64_t alignment) noexcept;

    // Finds `size` bytes (a result of block_size_for) at an address that is a
    // multiple of `alignment`. record == nil: no free block fits. The block is
    // in state allocated with no holder.
    // `thorough`: look further in the lists before giving up.
    placement allocate(std::uint64_t size, std::uint64_t alignment, std::uint64_t now,
                       bool thorough = false) noexcept;

    // Frees a block of any kind but free; the first `dirty` bytes of it may be
    // non-zero. Coalesces with free neighbours.
    void release(std::uint32_t index, std::uint64_t dirty, std::uint64_t now) noexcept;

    // Resizes an allocated block where it lies; false if its neighbour does
    // not allow it (nothing changed). After growing, `has_holes` in `grown`
    // says that the new part must be committed, and the block is marked so
    // until the caller clears the mark; `dirty` is as in placement.
    bool resize(std::uint32_t index, std::uint64_t size, std::uint64_t now,
                placement& grown) noexcept;

    // The oldest freed block, taken off the lists in state punching, nil if
    // none was freed before `freed_before` (ms); `finish_purge` frees it again,
    // zero throughout and with holes if `punched`.
    std::uint32_t take_for_purge(std::uint64_t freed_before) noexcept;
    // The same of the free block at the end, all of it, if it is committed and at
    // least `free_lists::purge_unit` long.
    std::uint32_t take_tail() noexcept;
    void finish_purge(std::uint32_t index, bool punched, std::uint64_t now) noexcept;

    std::uint64_t largest_free() noexcept;
    // Every broken invariant in words, at most `limit` of them.
    std::vector<std::string> check(std::size_t limit);

    // Turns an allocated block into one of the arena's own tables.
    void make_metadata(std::uint32_t index) noexcept;

private:
    std::uint32_t search(std::uint64_t size, std::uint64_t alignment, int limit) noexcept;
    std::uint32_t scan(size_class c, std::uint64_t size, std::uint64_t alignment,
                       int limit) noexcept;
    bool fits(const block_record& r, std::uint64_t size, std::uint64_t alignment) const noexcept;
    std::uint64_t align_offset(std::uint64_t offset, std::uint64_t alignment) const noexcept {
        return base::align_up(offset + bias_, alignment) - bias_;
    }
    placement carve(std::uint32_t index, block_record& r, std::uint64_t size,
                    std::uint64_t alignment, std::uint64_t now) noexcept;
    void link_after(std::uint32_t index, block_record& r, std::uint32_t left_index,
                    block_record& left) noexcept;
    void link_before(std::uint32_t index, block_record& r, std::uint32_t right_index,
                     block_record& right) noexcept;
    std::int32_t merge_into_right(std::uint32_t index, block_record& r, std::uint64_t dirty,
                                  bool with_holes, std::uint64_t now) noexcept;
    std::int32_t merge_free(std::uint32_t index, block_record& r, std::uint64_t dirty,
                            bool with_holes, std::uint64_t now) noexcept;
    void reshape_free(std::uint32_t index, block_record& r, std::uint64_t offset,
                      std::uint64_t size, std::uint64_t dirty, std::uint64_t now) noexcept;
    void become_free(std::uint32_t index, block_record& r, std::uint64_t dirty, bool with_holes,
                     std::uint64_t now) noexcept;
    void count(std::int64_t allocated_bytes, std::int32_t allocated_blocks,
               std::int32_t free_blocks) noexcept;
    friend class checker;

    block_table& table_;
    free_lists lists_;
    std::uint64_t bias_;
};

}  // namespace ndarena::tlsf
