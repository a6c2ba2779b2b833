// Nodes and other stored bytes where they lie in a segment.
#pragma once

#include "directory/entry.hpp"

#include "segment/segment.hpp"

#include <algorithm>

namespace ndarena::directory {

// `limit`: nothing that is stored ends beyond it; 0: beyond the watermark, which
// rises while others, or a transaction of our own, take more space.
class segment_source final : public node_source {
public:
    segment_source(const segment::segment& seg, std::uint64_t limit) noexcept
        : seg_(seg), limit_(limit) {}

    result<void> read(node_ref where, page& into) override {
        return copy(where.offset, into.data(), into.size());
    }
    const std::byte* in_place(node_ref where) noexcept override {
        return where.offset % segment::granule == 0 && covers(where.offset, node_bytes)
                   ? seg_.base() + where.offset
                   : nullptr;
    }
    // corruption if the range is not within the data area
    result<void> copy(std::uint64_t offset, void* into, std::size_t size) const;
    // The entry's type, shape and attributes from the block beside the tree.
    result<void> read_meta(const meta_block& where, entry& e) const;
    // The whole entry of a value.
    result<void> read_entry(std::string_view value, entry& e) const;
    bool covers(std::uint64_t offset, std::uint64_t size) const noexcept {
        return base::range_within(offset, size, seg_.geo().data_offset(), limit());
    }
    error damaged(const std::string& what) const;

private:
    std::uint64_t limit() const noexcept {
        return limit_ != 0 ? limit_
                           : std::min(seg_.mapped_size(),
                                      __atomic_load_n(&seg_.control().watermark, __ATOMIC_ACQUIRE));
    }
    const segment::segment& seg_;
    std::uint64_t limit_;
};

}  // namespace ndarena::directory
