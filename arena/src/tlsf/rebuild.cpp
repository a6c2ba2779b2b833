// The block table made anew around blocks that are known to be in use: what is
// left of an arena whose volatile state is gone.
#include "tlsf/tlsf.hpp"

#include <algorithm>

namespace ndarena::tlsf {

std::uint64_t allocator::tables_for(std::uint64_t blocks, std::uint64_t gaps) const noexcept {
    const auto& geo = table_.geo();
    // A table may leave a free block before it, and there is one at the end; a few
    // records stay unused so that work can go on.
    static constexpr std::uint64_t spare = 64;
    const auto records = [&](std::uint64_t chunks) {
        return blocks + gaps + 2 * (chunks + chunks / segment::radix_fanout + 1) + spare;
    };
    std::uint64_t chunks = 1;
    while (chunks < segment::max_chunks && chunks * geo.records_per_chunk() < records(chunks)) {
        chunks += std::max<std::uint64_t>(1, records(chunks) / geo.records_per_chunk() - chunks);
    }
    return chunks - 1;
}

// `tables`: offsets of zeroed, committed chunks beyond the first, in whatever
// order; `radix_pages` likewise.
bool allocator::rebuild(const std::vector<kept_block>& blocks,
                        const std::vector<std::uint64_t>& chunks,
                        const std::vector<std::uint64_t>& radix_pages, std::uint64_t watermark,
                        std::uint64_t now) noexcept {
    control_page& c = table_.control();
    auto& undo = table_.undo();
    c.watermark = watermark;
    std::size_t next_page = 0;
    for (const std::uint64_t offset : chunks) {
        if (table_.missing_radix_page()) {
            if (next_page == radix_pages.size()) {
                return false;
            }
            table_.add_radix_page(radix_pages[next_page++]);
        }
        if (!table_.add_chunk(offset)) {
            return false;
        }
        undo.commit();
    }
    std::uint32_t previous = 0;  // the first chunk's record, made by `format`
    std::uint64_t end = table_.at(0).offset + table_.at(0).size;
    const auto append = [&](std::uint64_t offset, std::uint64_t size) {
        const std::uint32_t index = table_.take();
        block_record& r = table_.at(index);
        r.offset = offset;
        r.size = size;
        r.payload = 0;
        r.serial = now;
        r.prev_physical = previous;
        table_.at(previous).next_physical = index;
        c.last_block = index;
        previous = index;
        end = offset + size;
        return index;
    };
    const auto fill_gap = [&](std::uint64_t until) {
        if (until > end) {
            const std::uint64_t size = until - end;
            const std::uint32_t index = append(end, size);
            // What lies there is anything, and may have no block on the disk.
            become_free(index, table_.at(index), size, true, now);
            count(0, 0, 1);
            undo.commit();
        }
    };
    for (const kept_block& b : blocks) {
        if (b.offset < end || table_.unused_count() < 2) {
            return false;
        }
        fill_gap(b.offset);
        const std::uint32_t index = append(b.offset, b.size);
        block_record& r = table_.at(index);
        r.payload = b.payload;
        if (b.names == 0) {
            r.state = block_state::metadata;
            c.metadata += b.size;
        } else {
            r.state = block_state::allocated;
            r.colour = b.colour;
            r.flags = holes;
            r.serial = c.session ^ ++c.serial;
            r.holders = b.names;
            r.prev_purge = b.names;
            count(static_cast<std::int64_t>(b.size), 1, 0);
        }
        undo.commit();
    }
    fill_gap(watermark);
    undo.commit();
    return end == watermark && !table_.is_corrupt();
}

}  // namespace ndarena::tlsf
