// TLSF over plain memory, and an independent model of what it manages.
//
// The model keeps its own map of extents and two maps of bytes: which may be
// non-zero, and which lie in pages that were given back. Free space is
// whatever is not allocated; it merges by itself.
#pragma once

#include "tlsf/tlsf.hpp"

#include "support/anonymous.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

namespace ndarena::tlsf {

constexpr std::uint64_t kibibyte = 1024;
constexpr std::uint64_t mebibyte = 1024 * kibibyte;
constexpr std::uint64_t granule = segment::granule;

// An allocator over anonymous memory of `size` bytes; its first byte counts
// as lying at `bias`.
class world {
public:
    explicit world(std::uint64_t size, std::uint64_t bias = 0, bool shared = false)
        : memory_(size, shared),
          geo_(segment::geometry::for_capacity(mebibyte)),
          cache_(segment::max_chunks * sizeof(std::uint64_t)),
          table_(memory_.data(), size, geo_, reinterpret_cast<std::uint64_t*>(cache_.data())),
          heap_(table_, bias) {
        heap_.format();
    }

    allocator& heap() { return heap_; }
    block_table& table() { return table_; }
    control_page& control() { return table_.control(); }
    std::byte* base() { return memory_.data(); }
    std::uint64_t size() const { return memory_.size(); }
    const segment::geometry& geo() const { return geo_; }
    block_record& record(std::uint32_t index) { return table_.at(index); }
    void commit() {
        ASSERT_FALSE(table_.is_corrupt());
        table_.undo().commit();
    }
    std::vector<std::string> check() { return heap_.check(100); }
    // As in a process that opens the segment anew.
    void forget() { table_.forget_cache(); }

    // The reserve of records that callers keep; false: no room for a chunk.
    bool keep_records() {
        if (table_.unused_count() >= 8) {
            return true;
        }
        const placement p = heap_.allocate(geo_.chunk_bytes(), segment::format_page, 0);
        if (p.record == nil) {
            return false;
        }
        std::memset(base() + p.offset, 0, p.size);
        EXPECT_TRUE(table_.add_chunk(p.offset));
        heap_.make_metadata(p.record);
        commit();
        return true;
    }

private:
    test::anonymous_memory memory_;
    segment::geometry geo_;
    test::anonymous_memory cache_;
    block_table table_;
    allocator heap_;
};

struct extent {
    std::uint64_t offset;
    std::uint64_t size;
    block_state state;
    bool operator==(const extent& o) const {
        return offset == o.offset && size == o.size && state == o.state;
    }
};
inline std::ostream& operator<<(std::ostream& out, const extent& e) {
    return out << '[' << e.offset << " +" << e.size << " state " << static_cast<int>(e.state)
               << ']';
}

// All blocks in the order of the chain.
inline std::vector<extent> blocks_of(world& w) {
    std::vector<extent> list;
    for (std::uint32_t i = w.control().first_block; i != nil && list.size() < 1000000;) {
        const block_record& r = w.record(i);
        list.push_back({r.offset, r.size, r.state});
        i = r.next_physical;
    }
    return list;
}

// All that the metadata says, in words: what lies in dead space is left out.
inline std::string describe(world& w) {
    std::ostringstream text;
    const control_page& c = w.control();
    for (const std::uint64_t number :
         {c.watermark, c.purge_bytes, c.allocated, c.metadata, c.first_level}) {
        text << number << ' ';
    }
    for (const std::uint32_t number :
         {c.record_bump, c.record_free, c.record_spare, c.chunk_count, c.first_block, c.last_block,
          c.purge_first, c.purge_last, c.allocated_count, c.free_count}) {
        text << number << ' ';
    }
    for (const std::uint32_t bits : c.second_level) {
        text << bits << ' ';
    }
    const auto* heads = reinterpret_cast<std::uint32_t*>(w.base() + w.geo().heads_offset());
    for (unsigned i = 0; i < segment::first_level_count * segment::second_level_count; ++i) {
        text << heads[i] << ' ';
    }
    for (std::uint32_t i = 0; i < c.record_bump; ++i) {
        const block_record& r = w.record(i);
        text << '\n' << i << ": " << static_cast<int>(r.state);
        if (r.state == block_state::unused) {
            text << " next " << r.next_free;
            continue;
        }
        text << ' ' << r.offset << ' ' << r.size << ' ' << r.payload << ' ' << r.prev_physical
             << ' ' << r.next_physical << ' ' << static_cast<int>(r.flags) << ' ' << r.holders;
        if (r.state == block_state::free) {
            text << ' ' << r.prev_free << ' ' << r.next_free << ' ' << r.serial;
        }
        if ((r.flags & queued) != 0) {
            text << ' ' << r.prev_purge << ' ' << r.next_purge;
        }
    }
    return text.str();
}

class model {
public:
    explicit model(world& w)
        : first_(w.geo().data_offset()),
          end_(w.control().watermark),
          dirty_(w.size() / granule, false),
          holes_(w.size() / granule, false) {
        take({first_, end_ - first_, block_state::metadata});
    }

    void extend(std::uint64_t watermark, bool dirty) {
        for (std::uint64_t g = end_ / granule; g < watermark / granule; ++g) {
            dirty_[g] = dirty;
        }
        end_ = watermark;
    }
    // The extent must lie in free space; non-free from now on.
    void take(const extent& e) {
        ASSERT_GE(e.offset, first_);
        ASSERT_LE(e.offset + e.size, end_);
        const auto next = held_.lower_bound(e.offset);
        ASSERT_TRUE(next == held_.end() || e.offset + e.size <= next->first) << e;
        ASSERT_TRUE(next == held_.begin() ||
                    std::prev(next)->first + std::prev(next)->second.size <= e.offset)
            << e;
        held_[e.offset] = e;
    }
    void drop(std::uint64_t offset) { ASSERT_EQ(held_.erase(offset), 1U); }
    void become(std::uint64_t offset, block_state state) { held_.at(offset).state = state; }
    // A result of allocate or resize: it promises [clean, end) to be zero and,
    // unless it says so, no page of it to be missing.
    void verify_claims(std::uint64_t offset, std::uint64_t size, std::uint64_t dirty,
                       bool has_holes) const {
        for (std::uint64_t at = offset; at < offset + size; at += granule) {
            if (at + granule > offset + dirty && at >= offset + dirty) {
                ASSERT_FALSE(dirty_[at / granule]) << "claimed clean at " << at - offset;
            }
            ASSERT_TRUE(has_holes || !holes_[at / granule]) << "a hole at " << at - offset;
        }
    }
    void scribble(std::uint64_t offset, std::uint64_t size) { paint(dirty_, offset, size, true); }
    void commit_pages(std::uint64_t offset, std::uint64_t size) {
        paint(holes_, offset, size, false);
    }
    void punch(std::uint64_t offset, std::uint64_t size) {
        paint(dirty_, offset, size, false);
        paint(holes_, offset, size, true);
    }

    std::vector<extent> blocks() const {
        std::vector<extent> list;
        std::uint64_t at = first_;
        for (const auto& [offset, e] : held_) {
            if (offset > at) {
                list.push_back({at, offset - at, block_state::free});
            }
            list.push_back(e);
            at = offset + e.size;
        }
        if (at < end_) {
            list.push_back({at, end_ - at, block_state::free});
        }
        return list;
    }
    std::uint64_t largest_free() const {
        std::uint64_t largest = 0;
        for (const extent& e : blocks()) {
            largest = e.state == block_state::free ? std::max(largest, e.size) : largest;
        }
        return largest;
    }

private:
    static void paint(std::vector<bool>& map, std::uint64_t offset, std::uint64_t size,
                      bool value) {
        for (std::uint64_t at = offset; at < offset + size; at += granule) {
            map[at / granule] = value;
        }
    }
    std::uint64_t first_;
    std::uint64_t end_;
    std::map<std::uint64_t, extent> held_;
    std::vector<bool> dirty_;
    std::vector<bool> holes_;
};

}  // namespace ndarena::tlsf
