// Capacity, committed space, purging.
#include "heap/fixture.hpp"

#include <chrono>
#include <thread>

namespace ndarena::heap {
namespace {

TEST_F(HeapTest, RefusesBeyondItsCapacityAndSaysSo) {
    const auto h = scratch(32 * mib);
    EXPECT_EQ(h->capacity(), 32 * mib);
    EXPECT_EQ(h->refusal(), "");
    EXPECT_EQ(h->allocate(33 * mib, 0, false), nullptr);
    EXPECT_EQ(h->stats().oom_count, 1U);
    EXPECT_NE(h->refusal().find("33.00 MiB asked"), std::string::npos) << h->refusal();
    EXPECT_NE(h->refusal().find("capacity 32.00 MiB"), std::string::npos) << h->refusal();
    EXPECT_EQ(h->allocate(std::uint64_t{1} << 60, 0, false), nullptr);
    const std::uint64_t largest = h->stats().largest_free;
    void* p = h->allocate(largest, 0, false);
    ASSERT_NE(p, nullptr) << "stats() said that it fits";
    EXPECT_EQ(h->allocate(64 * kib, 0, false), nullptr);
    h->deallocate(p);
    EXPECT_NE(h->allocate(largest, 0, false), nullptr);
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(HeapTest, EveryByteOfASmallArenaCanBeUsed) {
    const auto h = scratch(mib);
    std::uint64_t got = 0;
    while (h->allocate(64, 0, false) != nullptr) {
        got += 64;
    }
    const auto s = h->stats();
    EXPECT_EQ(s.allocated, got);
    EXPECT_LT(mib - s.metadata - got, 16 * kib) << "free, but not to be had";
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(HeapTest, GrowsOnRequest) {
    const auto h = create(32 * mib);
    EXPECT_EQ(h->allocate(40 * mib, 0, false), nullptr);
    ASSERT_TRUE(h->grow(64 * mib));
    EXPECT_EQ(h->capacity(), 64 * mib);
    EXPECT_NE(h->allocate(40 * mib, 0, false), nullptr);
    ASSERT_TRUE(h->grow(mib)) << "a lower one changes nothing";
    EXPECT_EQ(h->capacity(), 64 * mib);
    const auto refused = h->grow(segment::max_capacity);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.err().code, errc::no_memory);
    EXPECT_EQ(open(file(path_, open_mode::append, 128 * mib))->capacity(), 128 * mib);
    const auto reader = open(file(path_, open_mode::read));
    EXPECT_EQ(reader->grow(256 * mib).err().code, errc::read_only);
    EXPECT_EQ(reader->capacity(), 128 * mib);
}

TEST_F(HeapTest, ABufferIsAsLargeAsItIs) {
    const test::anonymous_memory memory(8 * mib);
    const auto h = open(buffer(memory.data(), memory.size()));
    EXPECT_EQ(h->grow(16 * mib).err().code, errc::invalid);
    EXPECT_EQ(h->allocate(8 * mib, 0, false), nullptr);
    EXPECT_NE(h->allocate(7 * mib, 0, false), nullptr);
}

TEST_F(HeapTest, CommitsAheadOfUse) {
    const auto h = create();
    const std::uint64_t empty = test::disk_bytes(path_);
    EXPECT_LT(empty, 2 * mib) << "a high capacity costs nothing";
    (void)h->allocate(10 * mib, 0, false);
    const auto s = h->stats();
    EXPECT_GE(s.committed, 10 * mib);
    EXPECT_GE(test::disk_bytes(path_), 10 * mib) << "disk blocks are there before the data";
    EXPECT_EQ(test::disk_bytes(path_) / mib, s.committed / mib);
    EXPECT_EQ(s.n_blocks, 1U);
    EXPECT_EQ(s.allocated, 10 * mib);
    EXPECT_EQ(s.peak_allocated, 10 * mib);
    EXPECT_EQ(s.processes, 1U);
}

TEST_F(HeapTest, FreedPagesGoBackAfterADelay) {
    const auto h = create();
    h->set_purge(50, 1024 * mib);
    void* p = h->allocate(16 * mib, 0, false);
    std::memset(p, 1, 16 * mib);
    const std::uint64_t full = test::disk_bytes(path_);
    h->deallocate(p);
    EXPECT_EQ(test::disk_bytes(path_), full) << "warm, within the budget";
    EXPECT_EQ(h->stats().warm_free, 16 * mib);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    EXPECT_EQ(test::disk_bytes(path_), full) << "no thread does it";
    h->deallocate(h->allocate(100, 0, false));
    EXPECT_LT(test::disk_bytes(path_) + 15 * mib, full);
    EXPECT_EQ(h->stats().warm_free, 0U);
    auto* again = static_cast<std::byte*>(h->allocate(16 * mib, 0, true));
    ASSERT_NE(again, nullptr);
    EXPECT_GE(test::disk_bytes(path_), full) << "committed again before use";
    EXPECT_TRUE(is_zero(again, 16 * mib));
    fill(again, 16 * mib, 1);
    EXPECT_TRUE(holds(again, 16 * mib, 1));
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(HeapTest, FreedPagesBeyondTheBudgetGoBackAtOnce) {
    const auto h = create();
    h->set_purge(-1, 4 * mib);
    std::vector<void*> blocks;
    for (int i = 0; i < 16; ++i) {
        blocks.push_back(h->allocate(mib, 0, false));
        std::memset(blocks.back(), 1, mib);
        (void)h->allocate(64 * kib, 0, false);
    }
    const std::uint64_t full = test::disk_bytes(path_);
    for (void* p : blocks) {
        h->deallocate(p);
        EXPECT_LE(h->stats().warm_free, 5 * mib);
    }
    EXPECT_LT(test::disk_bytes(path_) + 11 * mib, full);
    h->set_purge(-1, 1024 * mib);
    EXPECT_GT(h->stats().warm_free, 2 * mib) << "the newest stay warm";
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(HeapTest, NothingIsPurgedWhereItIsNotWanted) {
    const auto h = create();
    h->set_purge(-1, ~std::uint64_t{0});
    void* p = h->allocate(8 * mib, 0, false);
    const std::uint64_t full = test::disk_bytes(path_);
    for (int i = 0; i < 10; ++i) {
        h->deallocate(p);
        p = h->allocate(8 * mib, 0, false);
    }
    EXPECT_EQ(test::disk_bytes(path_), full);
}

TEST_F(HeapTest, TrimGivesAllFreePagesBack) {
    const auto h = create();
    std::vector<void*> blocks;
    for (int i = 0; i < 8; ++i) {
        blocks.push_back(h->allocate(mib, 0, false));
        fill(blocks.back(), mib, static_cast<std::uint64_t>(i));
    }
    const std::uint64_t full = test::disk_bytes(path_);
    for (std::size_t i = 0; i < blocks.size(); i += 2) {
        h->deallocate(blocks[i]);
    }
    EXPECT_GE(h->trim(), 4 * mib) << "and what was committed ahead";
    EXPECT_LT(test::disk_bytes(path_) + 3 * mib, full);
    EXPECT_EQ(h->trim(), 0U);
    for (std::size_t i = 1; i < blocks.size(); i += 2) {
        EXPECT_TRUE(holds(blocks[i], mib, i));
    }
    std::uint64_t punched = 0;
    for (const block_view& b : h->blocks()) {
        punched += b.state == view_state::punched ? b.size : 0;
    }
    EXPECT_GE(punched, 4 * mib);
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(HeapTest, TrimWorksOnMemoryToo) {
    for (const bool shared : {false, true}) {
        const test::anonymous_memory memory(32 * mib, shared);
        const auto h = open(buffer(memory.data() + 100, memory.size() - 4096));
        void* p = h->allocate(8 * mib, 0, false);
        std::memset(p, 1, 8 * mib);
        void* wall = h->allocate(100 * kib, 0, false);
        fill(wall, 100 * kib, 3);
        h->deallocate(p);
        const std::uint64_t before = h->stats().resident;
        EXPECT_GT(h->trim(), 7 * mib);
        EXPECT_LT(h->stats().resident + 7 * mib, before);
        EXPECT_TRUE(holds(wall, 100 * kib, 3));
        void* again = h->allocate(8 * mib, 0, true);
        EXPECT_TRUE(is_zero(again, 8 * mib));
        EXPECT_EQ(findings_of(*h), "");
    }
}

TEST_F(HeapTest, TheBlockMapTilesTheArena) {
    const auto h = scratch();
    std::vector<void*> blocks;
    for (std::uint64_t i = 1; i < 40; ++i) {
        blocks.push_back(h->allocate(i * 3000, 0, false));
    }
    for (std::size_t i = 0; i < blocks.size(); i += 3) {
        h->deallocate(blocks[i]);
    }
    const auto views = h->blocks();
    const auto s = h->stats();
    std::uint64_t at = views.front().offset;
    std::uint64_t allocated = 0;
    for (const block_view& v : views) {
        EXPECT_EQ(v.offset, at);
        at += v.size;
        allocated += v.state == view_state::allocated ? v.size : 0;
    }
    EXPECT_EQ(at, s.committed);
    EXPECT_EQ(allocated, s.allocated);
    EXPECT_EQ(views.front().state, view_state::metadata);
}

}  // namespace
}  // namespace ndarena::heap
