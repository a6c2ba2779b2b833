// What a block is: size, alignment, contents.
#include "heap/fixture.hpp"

#include <set>

namespace ndarena::heap {
namespace {

TEST_F(HeapTest, BlocksAreApartAndKeepTheirContents) {
    const auto h = scratch();
    std::vector<std::pair<void*, std::uint64_t>> blocks;
    for (const std::uint64_t size :
         {0U, 1U, 63U, 64U, 65U, 4096U, 65535U, 65536U, 65537U, 1000000U, 5000000U}) {
        void* p = h->allocate(size, 0, false);
        ASSERT_NE(p, nullptr);
        fill(p, size, blocks.size());
        blocks.emplace_back(p, size);
        EXPECT_EQ(h->size_of(p), std::max<std::uint64_t>(size, 1));
        EXPECT_TRUE(h->contains(p));
    }
    EXPECT_EQ(h->live_blocks(), blocks.size());
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        EXPECT_TRUE(holds(blocks[i].first, blocks[i].second, i));
        EXPECT_TRUE(h->deallocate(blocks[i].first));
    }
    EXPECT_EQ(h->live_blocks(), 0U);
    EXPECT_EQ(h->allocated_bytes(), 0U);
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(HeapTest, FreesOnlyWhatIsABlock) {
    const auto h = scratch();
    auto* p = static_cast<std::byte*>(h->allocate(1000, 0, false));
    int elsewhere = 0;
    EXPECT_FALSE(h->deallocate(nullptr));
    EXPECT_FALSE(h->deallocate(&elsewhere));
    EXPECT_FALSE(h->deallocate(p + 64));
    EXPECT_FALSE(h->deallocate(h->base()));
    EXPECT_EQ(h->size_of(p + 64), 0U);
    EXPECT_EQ(h->size_of(&elsewhere), 0U);
    EXPECT_FALSE(h->contains(&elsewhere));
    EXPECT_EQ(h->reallocate(&elsewhere, 10), nullptr);
    EXPECT_EQ(h->reallocate(p + 64, 10), nullptr);
    EXPECT_TRUE(h->deallocate(p));
    EXPECT_FALSE(h->deallocate(p)) << "freed twice";
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(HeapTest, ZeroedBlocksAreZeroWhateverWasThere) {
    const auto h = scratch();
    std::mt19937_64 random(1);
    std::vector<std::pair<void*, std::uint64_t>> live;
    for (int i = 0; i < 2000; ++i) {
        if (live.size() > 20 || (!live.empty() && random() % 2 == 0)) {
            const std::size_t victim = random() % live.size();
            h->deallocate(live[victim].first);
            live[victim] = live.back();
            live.pop_back();
            continue;
        }
        const std::uint64_t size = 1 + random() % (random() % 3 == 0 ? 300 * kib : 5000);
        const bool zero = random() % 2 == 0;
        void* p = h->allocate(size, 0, zero);
        ASSERT_NE(p, nullptr);
        if (zero) {
            ASSERT_TRUE(is_zero(p, size)) << i;
        }
        std::memset(p, 0xAB, size);
        live.emplace_back(p, size);
        if (i % 400 == 399) {
            h->trim();
        }
    }
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(HeapTest, ZeroingCostsNothingOnPristinePages) {
    const auto h = scratch();
    auto* p = static_cast<std::byte*>(h->allocate(64 * mib, 0, true));
    ASSERT_NE(p, nullptr);
    EXPECT_EQ(platform::resident_bytes(p, 64 * mib), 0U);
    std::memset(p, 1, mib);
    EXPECT_LT(platform::resident_bytes(p, 64 * mib), 8 * mib);
    h->deallocate(p);
    auto* again = static_cast<std::byte*>(h->allocate(64 * mib, 0, true));
    ASSERT_EQ(again, p);
    EXPECT_TRUE(is_zero(again, 64 * mib));
}

TEST_F(HeapTest, AlignmentOfTheArena) {
    for (std::uint64_t alignment = 64; alignment <= 2 * mib; alignment *= 8) {
        const auto h = scratch(256 * mib, alignment);
        EXPECT_EQ(h->alignment(), alignment);
        for (const std::uint64_t size : {1U, 100U, 5000U, 70000U, 1000000U}) {
            const auto p = reinterpret_cast<std::uintptr_t>(h->allocate(size, 0, false));
            ASSERT_NE(p, 0U);
            EXPECT_EQ(p % alignment, 0U) << size;
        }
    }
}

TEST_F(HeapTest, AlignmentOfTheRequest) {
    const auto h = scratch();
    for (std::uint64_t alignment = 1; alignment <= 2 * mib; alignment *= 2) {
        for (const std::uint64_t size : {1U, 5000U, 70000U, 1000000U}) {
            const auto p = reinterpret_cast<std::uintptr_t>(h->allocate(size, alignment, false));
            ASSERT_NE(p, 0U);
            EXPECT_EQ(p % alignment, 0U) << size;
            EXPECT_EQ(p % 64, 0U);
        }
    }
    for (const std::uint64_t alignment : {std::uint64_t{3}, 96 * kib, 4 * mib}) {
        EXPECT_EQ(h->allocate(100, alignment, false), nullptr);
        EXPECT_NE(h->refusal().find("alignment"), std::string::npos);
    }
}

TEST_F(HeapTest, AlignmentIsOfAddressesInBuffersToo) {
    const test::anonymous_memory memory(64 * mib);
    const auto h = open(buffer(memory.data() + 4096 + 8, memory.size() - 8192));
    for (std::uint64_t alignment = 64; alignment <= 2 * mib; alignment *= 2) {
        const auto p = reinterpret_cast<std::uintptr_t>(h->allocate(100000, alignment, false));
        EXPECT_EQ(p % alignment, 0U);
    }
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(HeapTest, LargeBlocksTouchNoNeighboursPage) {
    const auto h = scratch();
    std::set<std::uintptr_t> pages;
    for (int i = 0; i < 50; ++i) {
        const std::uint64_t size = 65536 + static_cast<std::uint64_t>(i) * 1000;
        const auto p = reinterpret_cast<std::uintptr_t>(h->allocate(size, 0, false));
        for (std::uintptr_t page = p / 4096; page <= (p + size - 1) / 4096; ++page) {
            EXPECT_TRUE(pages.insert(page).second);
        }
    }
}

// Operands that all start at the same place modulo 4 KiB slow each other down.
TEST_F(HeapTest, LargeBlocksAreColoured) {
    const auto h = scratch();
    std::set<std::uintptr_t> places;
    for (int i = 0; i < 8; ++i) {
        const auto p = reinterpret_cast<std::uintptr_t>(h->allocate(100 * kib + 8, 0, false));
        places.insert(p % 4096);
        EXPECT_TRUE(h->size_of(reinterpret_cast<void*>(p)) == 100 * kib + 8);
    }
    EXPECT_EQ(places.size(), 4U);
    places.clear();
    for (int i = 0; i < 8; ++i) {
        places.insert(reinterpret_cast<std::uintptr_t>(h->allocate(128 * kib, 0, false)) % 4096);
    }
    EXPECT_EQ(places, std::set<std::uintptr_t>{0}) << "where rounding leaves no room";
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(HeapTest, ReallocationKeepsTheContents) {
    const auto h = scratch();
    std::mt19937_64 random(2);
    struct block {
        void* p;
        std::uint64_t size;
        std::uint64_t seed;
    };
    std::vector<block> blocks;
    for (std::uint64_t i = 0; i < 30; ++i) {
        blocks.push_back({h->reallocate(nullptr, 1 + i * 1000), 1 + i * 1000, i});
        fill(blocks.back().p, blocks.back().size, i);
    }
    for (std::uint64_t i = 0; i < 1000; ++i) {
        block& b = blocks[random() % blocks.size()];
        const std::uint64_t size = 1 + random() % (random() % 4 == 0 ? mib : 20000);
        void* p = h->reallocate(b.p, size);
        ASSERT_NE(p, nullptr);
        ASSERT_TRUE(holds(p, std::min(size, b.size), b.seed));
        ASSERT_EQ(h->size_of(p), size);
        b = {p, size, 1000 + i};
        fill(p, size, b.seed);
    }
    for (const block& b : blocks) {
        EXPECT_TRUE(holds(b.p, b.size, b.seed));
    }
    EXPECT_EQ(h->live_blocks(), blocks.size());
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(HeapTest, ReallocationStaysInPlaceWhereItCan) {
    const auto h = scratch();
    void* a = h->allocate(mib, 0, false);
    void* b = h->allocate(mib, 0, false);
    void* wall = h->allocate(64, 0, false);
    fill(wall, 64, 9);
    ASSERT_EQ(h->reallocate(a, 300 * kib), a) << "shrinking";
    ASSERT_EQ(h->reallocate(a, mib), a) << "back into what it gave up";
    ASSERT_NE(b, nullptr);
    h->deallocate(b);
    ASSERT_EQ(h->reallocate(a, 2 * mib), a) << "into a freed neighbour";
    fill(a, 2 * mib, 3);
    EXPECT_TRUE(holds(wall, 64, 9));
    void* moved = h->reallocate(a, 2 * mib + 64);
    EXPECT_NE(moved, a) << "no room there";
    EXPECT_TRUE(holds(moved, 2 * mib, 3));
    EXPECT_EQ(h->size_of(a), 0U);
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(HeapTest, ARefusedReallocationLeavesTheBlock) {
    const auto h = scratch(32 * mib);
    void* p = h->allocate(mib, 0, false);
    fill(p, mib, 4);
    EXPECT_EQ(h->reallocate(p, 64 * mib), nullptr);
    EXPECT_TRUE(holds(p, mib, 4));
    EXPECT_EQ(h->size_of(p), mib);
    EXPECT_EQ(h->reallocate(p, ~std::uint64_t{0}), nullptr);
    EXPECT_TRUE(h->deallocate(p));
}

TEST_F(HeapTest, OperationsNeedAtMost48UndoEntries) {
    const auto h = scratch();
    h->set_purge(0, 0);
    std::mt19937_64 random(8);
    std::vector<void*> live;
    const int operations = test::under_sanitizer ? 2000 : 10000;
    for (int i = 0; i < operations; ++i) {
        if (i % 100 == 0) {
            h->set_purge(random() % 2 == 0 ? -1 : 0, random() % (4 * mib));
        }
        const std::uint64_t size = 1 + random() % (random() % 2 == 0 ? 300000 : 3000);
        const std::uint64_t what = random() % 10;
        if (what < 5 || live.empty()) {
            live.push_back(h->allocate(size, std::uint64_t{1} << (random() % 17), false));
        } else if (what < 8 || live.size() > 200) {
            std::swap(live[random() % live.size()], live.back());
            h->deallocate(live.back());
            live.pop_back();
        } else {
            void*& p = live[random() % live.size()];
            p = h->reallocate(p, size);
        }
        ASSERT_TRUE(live.empty() || live.back() != nullptr) << h->refusal();
    }
    EXPECT_LE(h->deepest_undo(), 32U);
    EXPECT_GT(h->deepest_undo(), 10U);
    RecordProperty("deepest_undo", static_cast<int>(h->deepest_undo()));
    EXPECT_EQ(findings_of(*h), "");
}

}  // namespace
}  // namespace ndarena::heap
