// Many blocks: what they cost, and tables of several pages.
#include "heap/fixture.hpp"

namespace ndarena::heap {
namespace {

TEST_F(HeapTest, MetadataIsAtMostThreePercentOfSmallArrays) {
    const auto h = scratch(1024 * mib);
    constexpr std::uint64_t blocks = 100000;
    for (std::uint64_t i = 0; i < blocks; ++i) {
        ASSERT_NE(h->allocate(4096, 0, false), nullptr);
    }
    const auto s = h->stats();
    EXPECT_EQ(s.n_blocks, blocks);
    EXPECT_EQ(s.allocated, blocks * 4096);
    EXPECT_LE(static_cast<double>(s.metadata), 0.03 * static_cast<double>(s.allocated));
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(HeapTest, ChunksAreAddedAsBlocksAre) {
    const auto h = scratch();
    std::vector<void*> blocks;
    for (std::uint64_t i = 0; i < 5000; ++i) {
        blocks.push_back(h->allocate(100, 0, false));
        ASSERT_NE(blocks.back(), nullptr);
        fill(blocks.back(), 100, i);
    }
    EXPECT_GE(h->seg().control().chunk_count, 5U);
    EXPECT_EQ(findings_of(*h), "");
    for (std::uint64_t i = 0; i < blocks.size(); ++i) {
        ASSERT_TRUE(holds(blocks[i], 100, i));
        ASSERT_TRUE(h->deallocate(blocks[i]));
    }
    EXPECT_EQ(h->allocated_bytes(), 0U);
    EXPECT_EQ(findings_of(*h), "");
}

// More than 512 chunks: the directory needs a second page.
TEST_F(HeapTest, TheDirectoryOfChunksHasPages) {
    const auto h = scratch(1024 * mib);
    h->set_purge(-1, ~std::uint64_t{0});
    constexpr std::size_t blocks = 540000;
    std::vector<void*> live;
    live.reserve(blocks);
    for (std::size_t i = 0; i < blocks; ++i) {
        live.push_back(h->allocate(64, 0, false));
        ASSERT_NE(live.back(), nullptr) << i << ": " << h->refusal();
        std::memcpy(live.back(), &i, sizeof i);
    }
    EXPECT_GT(h->seg().control().chunk_count, segment::radix_fanout);
    EXPECT_EQ(h->stats().n_blocks, blocks);
    EXPECT_EQ(findings_of(*h), "");
    EXPECT_CHILD_OK([&] {
        EXPECT_TRUE(h->deallocate(live.front()));
        EXPECT_TRUE(h->deallocate(live.back()));
        EXPECT_NE(h->allocate(64, 0, false), nullptr);
    });
    for (std::size_t i = 0; i < blocks; ++i) {
        std::size_t content = 0;
        std::memcpy(&content, live[i], sizeof content);
        ASSERT_EQ(content, i);
        ASSERT_TRUE(h->deallocate(live[i]));
    }
    h->reclaim();
    EXPECT_EQ(h->allocated_bytes(), 0U);
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(HeapTest, ManyHeapsAtOnce) {
    std::vector<std::shared_ptr<heap>> heaps;
    std::vector<void*> blocks;
    // Each reserves a tebibyte of addresses; ThreadSanitizer leaves few.
    const std::uint64_t count = test::under_tsan ? 3 : 40;
    for (std::uint64_t i = 0; i < count; ++i) {
        heaps.push_back(scratch(16 * mib));
        blocks.push_back(heaps.back()->allocate(10000, 0, false));
        fill(blocks.back(), 10000, i);
    }
    EXPECT_CHILD_OK([&] {
        for (std::uint64_t i = 0; i < heaps.size(); ++i) {
            EXPECT_TRUE(holds(blocks[i], 10000, i));
            EXPECT_EQ(heap::find(blocks[i]), heaps[i]);
            EXPECT_NE(heaps[i]->allocate(100, 0, false), nullptr);
        }
    });
    for (std::uint64_t i = 0; i < heaps.size(); ++i) {
        EXPECT_TRUE(heaps[i]->deallocate(blocks[i]));
        EXPECT_EQ(findings_of(*heaps[i]), "");
    }
}

}  // namespace
}  // namespace ndarena::heap
