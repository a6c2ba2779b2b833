// Where blocks land, and what happens to their neighbours.
#include "tlsf/fixture.hpp"

#include <set>

namespace ndarena::tlsf {
namespace {

class Placement : public ::testing::Test {
protected:
    void SetUp() override { extend(32 * mebibyte); }
    void TearDown() override {
        const auto findings = world_.check();
        EXPECT_TRUE(findings.empty()) << findings.front();
    }
    void extend(std::uint64_t watermark) {
        world_.heap().extend(watermark, false, now_);
        world_.commit();
    }
    placement allocate(std::uint64_t size, std::uint64_t alignment = granule) {
        const placement p = world_.heap().allocate(size, alignment, now_);
        if (p.record != nil) {
            world_.record(p.record).payload = size;
        }
        world_.commit();
        return p;
    }
    void release(const placement& p) {
        world_.heap().release(p.record, world_.record(p.record).size, now_);
        world_.commit();
    }
    bool resize(const placement& p, std::uint64_t size, placement& grown) {
        const bool done = world_.heap().resize(p.record, size, now_, grown);
        if (done) {
            world_.record(p.record).payload = size;
        }
        world_.commit();
        return done;
    }
    std::uint64_t free_blocks() { return world_.control().free_count; }

    world world_{256 * mebibyte};
    std::uint64_t now_ = 1;
};

TEST_F(Placement, AnIdenticalRequestFindsTheBlockJustFreed) {
    for (const std::uint64_t size : {64U, 1024U, 5056U, 20032U, 98304U, 1048576U}) {
        const placement first = allocate(size);
        const placement wall = allocate(64);
        release(first);
        const placement second = allocate(size);
        EXPECT_EQ(second.offset, first.offset) << size;
        release(second);
        release(wall);
    }
}

TEST_F(Placement, OwnClassIsTriedBeforeLargerOnes) {
    const std::uint64_t size = 1000 * granule;  // between two borders of classes
    ASSERT_FALSE(class_of(size) == class_that_holds(size));
    const placement exact = allocate(size);
    const placement wall = allocate(64);
    const placement larger = allocate(2 * size);
    const placement wall2 = allocate(64);
    release(larger);
    release(exact);
    EXPECT_EQ(allocate(size).offset, exact.offset);
    EXPECT_EQ(allocate(size).offset, larger.offset);
    release(wall);
    release(wall2);
}

TEST_F(Placement, TheFreeBlockAtTheEndIsUsedLast) {
    // What is left of the last block has the request's own class, an older gap a larger one.
    const std::uint64_t size = 1 * mebibyte;
    const placement gap = allocate(4 * size);
    (void)allocate(64);
    const std::uint64_t left = world_.record(world_.control().last_block).size;
    const placement rest = allocate(left - size);
    release(gap);
    const placement first = allocate(size);
    EXPECT_EQ(first.offset, gap.offset);
    for (int i = 0; i < 3; ++i) {
        EXPECT_LT(allocate(size).offset, rest.offset);
    }
    EXPECT_EQ(allocate(size).offset, rest.offset + left - size);
    EXPECT_EQ(allocate(size).record, nil);
}

TEST_F(Placement, WarmBlocksAreReusedLastInFirstOut) {
    std::vector<placement> blocks;
    for (int i = 0; i < 4; ++i) {
        blocks.push_back(allocate(4096));
        (void)allocate(64);
    }
    for (const placement& p : blocks) {
        release(p);
    }
    for (int i = 3; i >= 0; --i) {
        EXPECT_EQ(allocate(4096).offset, blocks[static_cast<std::size_t>(i)].offset);
    }
}

TEST_F(Placement, EveryAlignmentIsKept) {
    std::set<std::uint64_t> taken;
    for (std::uint64_t alignment = granule; alignment <= segment::max_alignment; alignment *= 2) {
        for (int i = 0; i < 3; ++i) {
            const placement p = allocate(64 + static_cast<std::uint64_t>(i) * 640, alignment);
            ASSERT_NE(p.record, nil);
            EXPECT_EQ(p.offset % alignment, 0U);
            EXPECT_TRUE(taken.insert(p.offset).second);
        }
    }
}

// Addresses are aligned, not offsets.
TEST(PlacementBias, CountsFromTheBaseAddress) {
    for (const std::uint64_t bias : {64U, 4032U, 4096U, 1U << 20, (2U << 20) - 64}) {
        world w(32 * mebibyte, bias);
        w.heap().extend(32 * mebibyte, false, 1);
        w.commit();
        for (const std::uint64_t alignment : {64U, 256U, 4096U, 65536U, 2U << 20}) {
            for (const std::uint64_t size : {64U, 4096U, 100032U}) {
                const placement p = w.heap().allocate(size, alignment, 1);
                ASSERT_NE(p.record, nil);
                EXPECT_EQ((p.offset + bias) % alignment, 0U);
                w.record(p.record).payload = size;
                w.commit();
            }
        }
        EXPECT_TRUE(w.check().empty());
    }
}

TEST_F(Placement, FreeNeighboursMerge) {
    const placement a = allocate(4096);
    const placement b = allocate(4096);
    const placement c = allocate(4096);
    const placement wall = allocate(64);
    const std::uint64_t before = free_blocks();
    release(a);
    EXPECT_EQ(free_blocks(), before + 1);
    release(c);
    EXPECT_EQ(free_blocks(), before + 2);
    release(b);
    EXPECT_EQ(free_blocks(), before + 1);
    EXPECT_EQ(allocate(3 * 4096).offset, a.offset);
    release(wall);
}

// What a block was cut from takes it back where it lies: its record stays, and
// with it its place among the free blocks of its class and in the purge queue.
TEST_F(Placement, ABlockMeltsIntoWhatItWasCutFrom) {
    const std::uint64_t size = 8 * mebibyte;
    const placement p = allocate(size + 4096);
    (void)allocate(64);
    const placement q = allocate(size + 4096);
    (void)allocate(64);
    release(p);
    release(q);
    const std::uint32_t first = p.record;
    const std::uint32_t second = q.record;
    const placement front = allocate(4096);  // of the second, the newest
    EXPECT_EQ(world_.record(second).size, size);
    const placement other = allocate(granule);
    const placement next = allocate(granule);
    const std::uint64_t before = free_blocks();
    now_ = 300;
    release(next);
    EXPECT_EQ(free_blocks(), before);
    EXPECT_EQ(world_.record(second).size, size - granule);
    EXPECT_EQ(world_.record(next.record).state, block_state::unused);
    release(other);
    release(front);
    EXPECT_EQ(world_.record(second).size, size + 4096);
    EXPECT_EQ(world_.record(second).payload, size + 4096) << "dirty throughout";
    // It waits for purging as long as its larger part.
    EXPECT_EQ(world_.heap().take_for_purge(100), first);
    world_.commit();
    EXPECT_EQ(world_.heap().take_for_purge(100), second);
    world_.commit();
}

// The larger part is the one that is freed: it has only begun to wait.
TEST_F(Placement, ALargeBlockMeltsIntoASmallOneAndWaitsAnew) {
    const placement large = allocate(mebibyte);
    const placement small = allocate(131072);
    (void)allocate(64);
    const placement old = allocate(131072);
    (void)allocate(64);
    now_ = 100;
    release(small);
    now_ = 200;
    release(old);
    now_ = 5000;
    release(large);
    EXPECT_EQ(world_.heap().take_for_purge(1000), old.record);
    EXPECT_EQ(world_.heap().take_for_purge(1000), nil);
    EXPECT_EQ(world_.heap().take_for_purge(5000), small.record);
    world_.commit();
}

TEST_F(Placement, GrowsIntoAFreeNeighbourOnly) {
    const placement a = allocate(65536);
    const placement b = allocate(65536);
    const placement wall = allocate(64);
    placement grown;
    EXPECT_FALSE(resize(a, 131072, grown));
    EXPECT_EQ(world_.record(a.record).size, 65536U);
    release(b);
    ASSERT_TRUE(resize(a, 98304, grown));
    EXPECT_EQ(grown.dirty, 32768U) << "what b has left behind";
    EXPECT_EQ(world_.record(a.record).size, 98304U);
    ASSERT_TRUE(resize(a, 131072, grown)) << "all of the neighbour";
    EXPECT_FALSE(resize(a, 131072 + 64, grown));
    EXPECT_EQ(world_.record(a.record).next_physical, wall.record);
    EXPECT_EQ(world_.record(wall.record).prev_physical, a.record);
}

TEST_F(Placement, ShrinksAndGivesTheTailBack) {
    const placement a = allocate(131072);
    const placement wall = allocate(64);
    placement shrunk;
    ASSERT_TRUE(resize(a, 65536, shrunk));
    const placement tail = allocate(65536);
    EXPECT_EQ(tail.offset, a.offset + 65536);
    EXPECT_EQ(tail.dirty, 65536U);
    release(tail);
    ASSERT_TRUE(resize(a, 4096, shrunk));
    EXPECT_EQ(allocate(126976).offset, a.offset + 4096) << "melted into the free neighbour";
    ASSERT_TRUE(resize(a, 4096, shrunk)) << "the same size";
    release(wall);
}

TEST_F(Placement, PristineSpaceIsClean) {
    const placement a = allocate(mebibyte);
    EXPECT_EQ(a.dirty, 0U);
    EXPECT_FALSE(a.has_holes);
    release(a);
    const placement again = allocate(mebibyte);
    EXPECT_EQ(again.dirty, mebibyte);
}

TEST_F(Placement, SpaceOfUnknownHistoryIsDirty) {
    world_.heap().extend(48 * mebibyte, true, now_);
    world_.commit();
    EXPECT_EQ(allocate(40 * mebibyte).dirty, 40 * mebibyte);
}

TEST_F(Placement, PurgedBlocksAreCleanAndHaveHoles) {
    const placement a = allocate(mebibyte);
    const placement wall = allocate(64);
    release(a);
    EXPECT_EQ(world_.heap().take_for_purge(0), nil) << "freed later than that";
    world_.commit();
    const std::uint32_t index = world_.heap().take_for_purge(now_);
    world_.commit();
    ASSERT_EQ(index, a.record);
    EXPECT_EQ(world_.record(index).state, block_state::punching);
    EXPECT_EQ(world_.record(index).payload, mebibyte) << "so much has to be given back";
    EXPECT_EQ(allocate(mebibyte).offset == a.offset, false) << "not to be had meanwhile";
    world_.heap().finish_purge(index, true, now_);
    world_.commit();
    const placement again = allocate(mebibyte);
    EXPECT_EQ(again.offset, a.offset);
    EXPECT_EQ(again.dirty, 0U);
    EXPECT_TRUE(again.has_holes);
    release(wall);
}

TEST_F(Placement, ABlockThatCouldNotBePunchedStaysDirty) {
    const placement a = allocate(mebibyte);
    (void)allocate(64);
    release(a);
    const std::uint32_t index = world_.heap().take_for_purge(now_);
    world_.commit();
    world_.heap().finish_purge(index, false, now_);
    world_.commit();
    const placement again = allocate(mebibyte);
    EXPECT_EQ(again.dirty, mebibyte);
    EXPECT_FALSE(again.has_holes);
}

TEST_F(Placement, SmallBlocksAreNotQueuedForPurging) {
    const placement small = allocate(4096);
    (void)allocate(64);
    release(small);
    EXPECT_EQ(world_.control().purge_first, nil);
    EXPECT_EQ(world_.control().purge_bytes, 0U);
}

TEST_F(Placement, TheOldestIsPurgedFirst) {
    std::vector<placement> blocks;
    for (int i = 0; i < 6; ++i) {
        blocks.push_back(allocate(131072));
        (void)allocate(64);
    }
    for (const std::size_t i : {3U, 0U, 5U, 1U, 4U, 2U}) {
        now_ += 10;
        release(blocks[i]);
    }
    for (const std::size_t i : {3U, 0U, 5U, 1U, 4U, 2U}) {
        EXPECT_EQ(world_.heap().take_for_purge(now_), blocks[i].record);
        world_.commit();
    }
}

// However blocks merge, one freed long ago does not wait behind one freed now.
TEST_F(Placement, MergingDoesNotHoldUpThePurgeQueue) {
    const placement left = allocate(131072);
    const placement middle = allocate(mebibyte);
    (void)allocate(64);
    const placement old = allocate(131072);
    (void)allocate(64);
    now_ = 100;
    release(left);
    now_ = 200;
    release(old);
    now_ = 5000;
    release(middle);  // merges with `left`, of which it is the larger part
    EXPECT_EQ(world_.heap().take_for_purge(1000), old.record);
    world_.commit();
}

TEST_F(Placement, RequestsThatDoNotFitAreRefused) {
    EXPECT_EQ(allocate(64 * mebibyte).record, nil);
    const std::uint64_t largest = world_.heap().largest_free();
    EXPECT_NE(allocate(largest).record, nil);
    EXPECT_EQ(world_.heap().largest_free(), 0U);
    EXPECT_EQ(allocate(64).record, nil);
}

// After extending by the shortfall the request fits, whatever lies on the list
// of its class.
TEST_F(Placement, TheShortfallIsEnough) {
    const std::uint64_t size = mebibyte + 4096;
    ASSERT_TRUE(class_of(mebibyte) == class_of(size));
    (void)allocate(world_.control().watermark - world_.geo().data_offset() -
                   world_.geo().chunk_bytes());
    extend(40 * mebibyte);
    std::vector<placement> blocks;
    for (int i = 0; i < 6; ++i) {
        blocks.push_back(allocate(mebibyte));
        (void)allocate(64);
    }
    (void)allocate(world_.heap().largest_free() - mebibyte);
    for (const placement& p : blocks) {
        release(p);
    }
    ASSERT_EQ(allocate(size).record, nil);
    const std::uint64_t more = world_.heap().shortfall(size, granule);
    EXPECT_EQ(more, 4096U) << "the last block is free and nearly large enough";
    extend(world_.control().watermark + more);
    EXPECT_NE(allocate(size).record, nil);
}

TEST_F(Placement, TheShortfallCountsTheAlignment) {
    for (const std::uint64_t alignment : {64U, 4096U, 2U << 20}) {
        for (const std::uint64_t size : {64U, 65536U, 40U << 20}) {
            while (world_.heap().largest_free() != 0) {
                (void)allocate(world_.heap().largest_free());
            }
            const std::uint64_t more = world_.heap().shortfall(size, alignment);
            if (world_.control().watermark + more > world_.size()) {
                continue;
            }
            extend(base::align_up(world_.control().watermark + more, 4096));
            ASSERT_NE(allocate(size, alignment).record, nil);
            ASSERT_TRUE(world_.keep_records());
        }
    }
}

}  // namespace
}  // namespace ndarena::tlsf
