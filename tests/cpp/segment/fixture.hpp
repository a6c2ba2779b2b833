// Segments for tests of this layer. What the heap does to one that is new, a
// test does by `pretend_used`.
#pragma once

#include "segment/segment.hpp"

#include "support/build.hpp"
#include "support/instance.hpp"
#include "support/places.hpp"
#include "support/process.hpp"

#include <memory>
#include <string>

namespace ndarena::segment {

constexpr std::uint64_t mebibyte = std::uint64_t{1} << 20;

class SegmentTest : public ::testing::Test {
protected:
    static segment_options file(const std::string& path, open_mode mode,
                                std::uint64_t capacity = 0) {
        segment_options o;
        o.kind = segment_kind::file;
        o.mode = mode;
        o.path = path;
        o.capacity = capacity;
        return o;
    }
    static std::unique_ptr<segment> open(const segment_options& options) {
        auto opened = segment::open(options);
        EXPECT_TRUE(opened) << (opened ? "" : opened.err().message);
        return opened ? std::move(*opened) : nullptr;
    }
    static errc refused(const segment_options& options) {
        const auto opened = segment::open(options);
        EXPECT_FALSE(opened);
        if (opened) {
            return errc::ok;
        }
        EXPECT_FALSE(opened.err().message.empty());
        return opened.err().code;
    }
    // Trustworthy volatile state: as after a heap has lived in the segment.
    static void pretend_used(segment& seg) {
        control_page& c = seg.control();
        const auto id = platform::instance_of(seg.fd());
        c.boot = id.boot;
        c.device = id.device;
        c.inode = id.inode;
        c.inode_generation = id.generation;
        c.mount = id.mount;
        c.capacity = seg.initial_capacity();
        c.watermark = seg.geo().data_offset() + seg.geo().chunk_bytes();
        c.chunk_count = 1;
        c.record_bump = 1;
        c.initialized = 1;
        seg.slot_at(seg.slot()).state.store(1);
        EXPECT_TRUE(seg.publish());
        seg.finish_opening();
    }
    bool state_is_lasting() const { return test::state_is_lasting(path_); }
    // A file with trustworthy state in which nobody lives.
    void make_used_file() {
        auto seg = open(file(path_, open_mode::exclusive, 4 * mebibyte));
        ASSERT_NE(seg, nullptr);
        pretend_used(*seg);
        seg->leave_slot();
    }
    test::temp_dir dir_;
    std::string path_ = dir_ / "arena";
};

}  // namespace ndarena::segment
