// A heap, and whether its blocks are kept for the next request of their size.
#pragma once

#include "heap/fixture.hpp"

#include <utility>

namespace ndarena::heap {

class Recycling : public HeapTest {
protected:
    // What the segment says, kept blocks included; nothing is given back for it.
    static std::uint64_t in_segment(heap& h) { return h.seg().control().allocated; }
    // Whether the operation took the segment's lock: in this way blocks come and
    // go that are kept, and in no other.
    template <class F>
    static bool took_lock(heap& h, F&& operation) {
        const std::uint64_t before = h.seg().control().generation;
        operation();
        return h.seg().control().generation != before;
    }
    static bool is_kept_when_freed(heap& h, void* p) {
        return !took_lock(h, [&] { EXPECT_TRUE(h.deallocate(p)); });
    }
    // Another process in all but its memory: it holds a slot of its own.
    std::unique_ptr<segment::segment> other_process() {
        auto other = segment::segment::open(file(path_, open_mode::read_write));
        EXPECT_TRUE(other);
        (*other)->finish_opening();
        return std::move(*other);
    }
};

}  // namespace ndarena::heap
