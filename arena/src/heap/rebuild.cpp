// The volatile state from nothing, or from the stored names: a new segment, or
// one whose state was written by another instance.
#include "heap/heap.hpp"

#include <algorithm>
#include <cstring>

namespace ndarena::heap {
namespace {

// Finds room for the tables between the blocks, the rest at the end.
class table_planner {
public:
    table_planner(const std::vector<tlsf::kept_block>& blocks, std::uint64_t first)
        : blocks_(blocks), at_(first) {}

    std::uint64_t place(std::uint64_t size) {
        for (;;) {
            const std::uint64_t start = base::align_up(at_, segment::format_page);
            if (next_ == blocks_.size() || start + size <= blocks_[next_].offset) {
                at_ = start + size;
                return start;
            }
            at_ = blocks_[next_].offset + blocks_[next_].size;
            ++next_;
        }
    }

private:
    const std::vector<tlsf::kept_block>& blocks_;
    std::uint64_t at_;
    std::size_t next_ = 0;
};

}  // namespace

// One block for each place that something stored leads to; several names may
// hold the same one.
result<std::vector<tlsf::kept_block>> heap::merge_survivors(std::vector<survivor> survivors) const {
    const auto damaged_at = [&](std::uint64_t offset, const char* what) {
        return error{errc::corruption, 0,
                     "the stored names lead to a block at offset " + std::to_string(offset) + what +
                         "; restore the file from a copy",
                     seg_->path()};
    };
    std::sort(survivors.begin(), survivors.end(),
              [](const survivor& a, const survivor& b) { return a.offset < b.offset; });
    const std::uint64_t first = seg_->geo().data_offset() + seg_->geo().chunk_bytes();
    auto bytes = seg_->file_bytes();
    if (!bytes) {
        return bytes.err();
    }
    const std::uint64_t last = std::min(*bytes, seg_->mapped_size());
    std::vector<tlsf::kept_block> blocks;
    blocks.reserve(survivors.size());
    for (const survivor& s : survivors) {
        const std::uint64_t shift = s.colour * std::uint64_t{1024};
        if (s.nbytes > last || s.offset < shift) {
            return damaged_at(s.offset, " that is larger than the file");
        }
        const std::uint64_t size = tlsf::block_size_for(std::max<std::uint64_t>(s.nbytes, 1));
        const tlsf::kept_block b{s.offset - shift, size, s.nbytes, 1, s.colour};
        if (!base::range_within(b.offset, shift + s.nbytes, first, last) ||
            b.offset % segment::granule != 0 || shift + s.nbytes > size) {
            return damaged_at(s.offset, " outside the file (it was truncated)");
        }
        if (!blocks.empty() && blocks.back().offset == b.offset) {
            if (blocks.back().payload != b.payload || blocks.back().colour != b.colour) {
                return damaged_at(s.offset, " in two ways");
            }
            ++blocks.back().names;
        } else if (!blocks.empty() && b.offset < blocks.back().offset + blocks.back().size) {
            return damaged_at(s.offset, " that overlaps another");
        } else {
            blocks.push_back(b);
        }
    }
    return blocks;
}

result<void> heap::format_volatile(const segment::root_page* root,
                                   std::vector<survivor> survivors) {
    segment::control_page& c = seg_->control();
    const segment::geometry& geo = seg_->geo();
    const std::uint64_t first = geo.data_offset() + geo.chunk_bytes();
    auto merged = merge_survivors(std::move(survivors));
    if (!merged) {
        return merged.err();
    }
    std::vector<tlsf::kept_block>& blocks = *merged;
    std::uint64_t end = blocks.empty() ? first : blocks.back().offset + blocks.back().size;

    // Everything that can fail comes before the first change.
    table_planner planner(blocks, first);
    std::uint64_t gaps = 0;
    std::uint64_t before = first;
    for (const auto& b : blocks) {
        gaps += b.offset != before ? 1 : 0;
        before = b.offset + b.size;
    }
    std::vector<std::uint64_t> chunks(tlsf_.tables_for(blocks.size(), gaps));
    std::vector<std::uint64_t> pages(chunks.size() / segment::radix_fanout);
    std::vector<tlsf::kept_block> tables;
    for (auto& offset : chunks) {
        offset = planner.place(geo.chunk_bytes());
        tables.push_back({offset, geo.chunk_bytes(), geo.chunk_bytes(), 0, 0});
    }
    for (auto& offset : pages) {
        offset = planner.place(segment::format_page);
        tables.push_back({offset, segment::format_page, segment::format_page, 0, 0});
    }
    if (!tables.empty()) {
        end = std::max(end, tables.back().offset + tables.back().size);
    }
    const std::uint64_t watermark =
        end == first ? first : base::align_up(end, segment::format_page);
    const std::uint64_t capacity = std::max(seg_->initial_capacity(), watermark);
    auto bytes = seg_->file_bytes();
    if (!bytes) {
        return bytes.err();
    }
    if (capacity > seg_->mapped_size()) {
        return error{errc::no_memory, 0,
                     "no room for the arena's tables beside the stored arrays; copy it with "
                     "`ndarena compact` to where there is more",
                     seg_->path()};
    }
    bool unclean = !seg_->is_pristine();
    if (watermark > *bytes) {
        if (const int rc = seg_->extend(*bytes, watermark); rc != 0) {
            return platform::system_error("cannot reserve space for the arena's tables", rc,
                                          seg_->path());
        }
    } else if (unclean && !seg_->has_fixed_size()) {
        // Alone in the file: cutting it gives the space back and makes it zero.
        unclean = !platform::set_file_size(seg_->fd(), watermark, seg_->path());
    }
    for (const auto& t : tables) {
        if (const int rc = seg_->commit_range(t.offset, t.size); rc != 0) {
            return platform::system_error("cannot reserve space for the arena's tables", rc,
                                          seg_->path());
        }
    }

    // Everything but the slots: ours is claimed already, and incarnations of
    // the others must go on counting.
    std::fill_n(seg_->base() + geo.control_offset(), geo.slots_offset() - geo.control_offset(),
                std::byte{0});
    std::fill_n(seg_->base() + geo.transit_offset(), geo.data_offset() - geo.transit_offset(),
                std::byte{0});
    for (std::uint32_t slot = 0; slot < geo.slot_count; ++slot) {
        seg_->slot_at(slot).state.store(0, std::memory_order_relaxed);
    }
    c.capacity = capacity;
    c.session = platform::random_u64();
    c.unclean = unclean ? 1 : 0;
    c.transit_free = tlsf::nil;
    c.ledger = c.dropped_first = c.dropped_last = tlsf::nil;
    tlsf_.format();
    if (watermark != first) {
        for (const auto& t : tables) {
            std::memset(seg_->base() + t.offset, 0, t.size);
        }
        blocks.insert(blocks.end(), tables.begin(), tables.end());
        std::sort(blocks.begin(), blocks.end(),
                  [](const auto& a, const auto& b) { return a.offset < b.offset; });
        if (!tlsf_.rebuild(blocks, chunks, pages, watermark, platform::monotonic_milliseconds())) {
            return error{errc::corruption, 0, "the arena's tables could not be made anew",
                         seg_->path()};
        }
    }
    // Readers of an earlier time keep what they see: no epoch comes twice.
    c.directory_root = root == nullptr ? 0 : root->directory;
    c.directory_record = tlsf::nil;
    c.epoch = std::max(root == nullptr ? 0 : root->epoch, seg_->newest_reader()) + 1;
    c.durable = c.epoch;
    c.snapshot_serial = c.serial;
    write_witness();
    if (root == nullptr) {
        seg_->write_root({0, c.watermark, c.capacity, c.epoch});
    }
    base::order_stores();
    c.initialized = 1;
    return {};
}

}  // namespace ndarena::heap
