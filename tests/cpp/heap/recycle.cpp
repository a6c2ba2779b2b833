// Freed blocks that wait for the next request of their size.
#include "heap/recycling.hpp"

#include <algorithm>
#include <thread>

namespace ndarena::heap {
namespace {

TEST(Recycler, HandsOutTheNewestOfExactlyThatSize) {
    const auto any = [](std::uint64_t) { return true; };
    recycler kept;
    kept.set_limit(1000);
    recycler::block got;
    EXPECT_TRUE(kept.is_empty());
    EXPECT_FALSE(kept.take_any(got));
    kept.put({1, 11, 21, 128, 31});
    kept.put({2, 12, 22, 128, 32});
    EXPECT_EQ(kept.bytes(), 256U);
    EXPECT_EQ(kept.oldest_stamp(), 31U);
    EXPECT_FALSE(kept.take(64, any, got));
    EXPECT_FALSE(kept.take(192, any, got));
    ASSERT_TRUE(kept.take(128, any, got));
    EXPECT_EQ(got.key, 2U);
    EXPECT_EQ(got.serial, 12U);
    EXPECT_EQ(got.record, 22U);
    EXPECT_EQ(got.size, 128U);
    EXPECT_EQ(got.stamp, 32U);
    kept.put(got);
    ASSERT_TRUE(kept.take(
        128, [](std::uint64_t key) { return key == 1; }, got));
    EXPECT_EQ(got.key, 1U);
    EXPECT_EQ(kept.oldest_stamp(), 32U) << "the other has moved up";
    ASSERT_TRUE(kept.take_any(got));
    EXPECT_EQ(got.key, 2U);
    EXPECT_TRUE(kept.is_empty());
    EXPECT_EQ(kept.bytes(), 0U);
}

TEST(Recycler, TakesInNoMoreThanItMay) {
    recycler kept;
    EXPECT_FALSE(kept.accepts(64)) << "no limit was set";
    kept.set_limit(1024);
    EXPECT_FALSE(kept.accepts(0)) << "the mark of a block that is never kept";
    EXPECT_TRUE(kept.accepts(512));
    EXPECT_FALSE(kept.accepts(576)) << "more than half";
    kept.put({1, 0, 0, 512, 0});
    EXPECT_TRUE(kept.has_room(512));
    EXPECT_FALSE(kept.has_room(576));
    kept.put({2, 0, 0, 64, 0});
    EXPECT_FALSE(kept.has_room(64)) << "there are two places";
    kept.forget();
    EXPECT_TRUE(kept.is_empty());
    EXPECT_TRUE(kept.has_room(1024));
    kept.set_limit(std::uint64_t{1} << 40);
    EXPECT_TRUE(kept.accepts(recycler::largest));
    EXPECT_FALSE(kept.accepts(recycler::largest + 64)) << "its size has no place";
}

TEST_F(Recycling, ServesTheNextRequestOfTheSizeWithoutTheLock) {
    const test::anonymous_memory memory(256 * mib);
    for (const auto& h : {scratch(), create(), open(buffer(memory.data(), memory.size()))}) {
        void* p = h->allocate(5000, 0, false);
        void* wall = h->allocate(5000, 0, false);
        const std::uint64_t both = h->allocated_bytes();
        EXPECT_FALSE(took_lock(*h, [&] {
            for (int i = 0; i < 50; ++i) {
                EXPECT_TRUE(h->deallocate(p));
                EXPECT_EQ(h->allocated_bytes(), both / 2);
                EXPECT_EQ(h->live_blocks(), 1U);
                // 5056 bytes, whatever was asked for in them
                EXPECT_EQ(h->allocate(5000 + static_cast<std::uint64_t>(i), 0, false), p);
                EXPECT_EQ(h->size_of(p), 5000U + static_cast<std::uint64_t>(i));
            }
        }));
        EXPECT_EQ(h->allocated_bytes(), both);
        EXPECT_EQ(findings_of(*h), "");
        EXPECT_TRUE(h->deallocate(wall));
        EXPECT_TRUE(h->deallocate(p));
        EXPECT_EQ(h->stats().n_blocks, 0U);
    }
}

TEST_F(Recycling, AKeptBlockIsAFreeOne) {
    const auto h = create();
    void* p = h->allocate(5000, 0, false);
    ASSERT_TRUE(is_kept_when_freed(*h, p));
    EXPECT_FALSE(h->deallocate(p)) << "freed twice";
    EXPECT_EQ(h->size_of(p), 0U);
    EXPECT_EQ(h->reallocate(p, 100), nullptr);
    EXPECT_FALSE(h->retain(p));
    block_id id;
    std::uint64_t nbytes = 0;
    EXPECT_FALSE(h->identify(p, id, nbytes));
    EXPECT_FALSE(h->send(p, 1));
    EXPECT_EQ(h->live_blocks(), 0U);
    EXPECT_EQ(h->allocated_bytes(), 0U);
    EXPECT_EQ(h->allocate(5000, 0, false), p) << "and is still to be had";
    EXPECT_FALSE(h->deallocate(static_cast<std::byte*>(p) + 64));
}

// Whoever counts or looks for room finds the arena as if nothing were kept.
TEST_F(Recycling, EverythingElseGivesItBackFirst) {
    const auto h = create();
    const auto given_back_by = [&](auto&& operation) {
        void* p = h->allocate(5000, 0, false);
        EXPECT_TRUE(is_kept_when_freed(*h, p));
        EXPECT_EQ(in_segment(*h), 5056U);
        operation();
        return in_segment(*h) < 5056;
    };
    EXPECT_TRUE(given_back_by([&] { EXPECT_EQ(h->stats().n_blocks, 0U); }));
    EXPECT_TRUE(given_back_by([&] { EXPECT_EQ(findings_of(*h), ""); }));
    EXPECT_TRUE(given_back_by([&] {
        for (const block_view& view : h->blocks()) {
            EXPECT_NE(view.state, view_state::allocated);
        }
    }));
    EXPECT_TRUE(given_back_by([&] { (void)h->trim(); }));
    EXPECT_TRUE(given_back_by([&] { (void)h->reclaim(); }));
    EXPECT_TRUE(given_back_by([&] { h->set_purge(2000, 64 * mib); }));
    EXPECT_TRUE(given_back_by([&] { EXPECT_TRUE(h->deallocate(h->allocate(64, 0, false))); }));
    EXPECT_TRUE(given_back_by([&] { EXPECT_EQ(h->allocate(300 * mib, 0, false), nullptr); }));
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(Recycling, GrowsOverAKeptNeighbour) {
    const auto h = create();
    void* p = h->allocate(5000, 0, false);
    void* neighbour = h->allocate(5000, 0, false);
    (void)h->allocate(64, 0, false);
    ASSERT_GT(neighbour, p);
    fill(p, 5000, 1);
    ASSERT_TRUE(is_kept_when_freed(*h, neighbour));
    EXPECT_EQ(h->reallocate(p, 10000), p);
    EXPECT_TRUE(holds(p, 5000, 1));
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(Recycling, NobodyIsRefusedForWhatIsKept) {
    const auto h = scratch(mib);
    std::vector<std::byte*> blocks;
    while (void* p = h->allocate(64, 0, false)) {
        blocks.push_back(static_cast<std::byte*>(p));
    }
    std::sort(blocks.begin(), blocks.end());
    const auto pair = std::adjacent_find(blocks.begin(), blocks.end(),
                                         [](auto* a, auto* b) { return a + 64 == b; });
    ASSERT_NE(pair, blocks.end());
    ASSERT_TRUE(is_kept_when_freed(*h, *pair));
    ASSERT_TRUE(is_kept_when_freed(*h, *(pair + 1)));
    EXPECT_EQ(h->allocate(128, 0, false), *pair) << h->refusal();
    EXPECT_EQ(findings_of(*h), "");
}

// A request whose address or extent would not fit is not served.
TEST_F(Recycling, AlignmentIsThatOfTheRequest) {
    const auto h = create();
    std::vector<void*> odd;
    for (int i = 0; i < 8; ++i) {
        void* p = h->allocate(8192, 0, false);
        (void)h->allocate(64, 0, false);
        if (reinterpret_cast<std::uintptr_t>(p) % 4096 != 0) {
            odd.push_back(p);
        }
    }
    ASSERT_FALSE(odd.empty());
    ASSERT_TRUE(is_kept_when_freed(*h, odd[0]));
    void* aligned = h->allocate(8192, 4096, false);
    ASSERT_NE(aligned, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(aligned) % 4096, 0U);
    ASSERT_TRUE(is_kept_when_freed(*h, aligned));
    EXPECT_FALSE(took_lock(*h, [&] { EXPECT_EQ(h->allocate(8192, 4096, false), aligned); }));
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(Recycling, AColouredBlockServesWhatFitsBehindItsColour) {
    // The base is no page's, as a buffer's may be: pages are counted from addresses.
    const test::anonymous_memory memory(256 * mib);
    const auto h = open(buffer(memory.data() + 192, memory.size() - 4096));
    const std::uint64_t pages = 17 * 4096;
    std::vector<std::byte*> blocks;
    for (int i = 0; i < 4; ++i) {  // of four colours
        blocks.push_back(static_cast<std::byte*>(h->allocate(pages - 3072, 0, false)));
    }
    void* wall = h->allocate(pages, 0, false);
    fill(wall, pages, 9);
    int coloured = 0;
    for (std::byte* p : blocks) {
        (void)h->stats();  // gives the one before back
        const std::uint64_t shift = reinterpret_cast<std::uintptr_t>(p) % 4096;
        ASSERT_TRUE(is_kept_when_freed(*h, p));
        EXPECT_FALSE(took_lock(*h, [&] { EXPECT_EQ(h->allocate(pages - shift, 0, false), p); }));
        fill(p, pages - shift, 3);
        ASSERT_TRUE(is_kept_when_freed(*h, p));
        if (shift != 0) {
            ++coloured;
            EXPECT_TRUE(took_lock(*h, [&] {
                void* q = h->allocate(pages - shift + 1, 0, false);
                EXPECT_NE(q, p);
                fill(q, pages - shift + 1, 4);
            }));
        }
    }
    EXPECT_EQ(coloured, 3);
    EXPECT_TRUE(holds(wall, pages, 9));
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(Recycling, AResizedBlockIsKeptWithTheSizeItHas) {
    const auto h = create();
    for (const auto& [before, after] : {std::pair{std::uint64_t{20000}, std::uint64_t{3000}},
                                        {200 * kib, 70 * kib},
                                        {std::uint64_t{66000}, std::uint64_t{40000}}}) {
        for (int colour = 0; colour < 4; ++colour) {
            void* p = h->allocate(before, 0, false);
            void* wall = h->allocate(before, 0, false);
            fill(wall, before, 1);
            ASSERT_EQ(h->reallocate(p, after), p);
            EXPECT_TRUE(h->deallocate(p));
            if (before < 64 * kib) {
                EXPECT_FALSE(took_lock(*h, [&] { EXPECT_EQ(h->allocate(after, 0, false), p); }));
                EXPECT_TRUE(h->deallocate(p));
            }
            for (const std::uint64_t size : {before, after, after + 2048}) {
                void* q = h->allocate(size, 0, false);
                fill(q, size, 2);
                EXPECT_TRUE(holds(wall, before, 1)) << before << " " << after << " " << size;
                EXPECT_TRUE(h->deallocate(q));
            }
            EXPECT_TRUE(h->deallocate(wall));
        }
        EXPECT_EQ(findings_of(*h), "");
    }
}

TEST_F(Recycling, ZeroedRequestsGetZeros) {
    const auto h = create();
    for (const std::uint64_t size : {std::uint64_t{100}, 60 * kib, 64 * kib, 200 * kib}) {
        void* p = h->allocate(size, 0, false);
        std::memset(p, 0xEE, size);
        ASSERT_TRUE(is_kept_when_freed(*h, p));
        void* zeros = nullptr;
        EXPECT_EQ(took_lock(*h, [&] { zeros = h->allocate(size, 0, true); }), size >= 64 * kib)
            << "a large one may find pages that nobody has touched";
        EXPECT_TRUE(is_zero(zeros, size));
    }
}

TEST_F(Recycling, KeepsLittleAndNothingWhereFreedPagesGoBackAtOnce) {
    const auto h = create(256 * mib);  // of which it keeps a mebibyte
    const auto is_kept = [&](std::uint64_t size) {
        (void)h->stats();
        return is_kept_when_freed(*h, h->allocate(size, 0, false));
    };
    EXPECT_TRUE(is_kept(512 * kib));
    EXPECT_FALSE(is_kept(516 * kib)) << "half of what may be kept";
    std::vector<void*> blocks;
    for (int i = 0; i < 12; ++i) {
        blocks.push_back(h->allocate(300 * kib, 0, false));
    }
    for (void* p : blocks) {
        EXPECT_TRUE(h->deallocate(p));
        EXPECT_LE(in_segment(*h) - h->allocated_bytes(), mib);
    }
    h->set_purge(0, 64 * mib);
    EXPECT_FALSE(is_kept(5000)) << "at once";
    h->set_purge(2000, 0);
    EXPECT_FALSE(is_kept(5000)) << "no budget";
    h->set_purge(2000, 64 * kib);
    EXPECT_FALSE(is_kept(5000));
    EXPECT_TRUE(is_kept(4000)) << "half of an eighth of it";
    h->set_purge(-1, 64 * mib);
    EXPECT_TRUE(is_kept(5000));
    const auto small = scratch(8 * mib);
    void* p = small->allocate(20000, 0, false);
    EXPECT_FALSE(is_kept_when_freed(*small, p)) << "more than half of 32 KiB";
}

// A program that does nothing but free and ask for the same again.
TEST_F(Recycling, PagesFreedBeforeDoNotWaitForEver) {
    const auto h = create();
    h->set_purge(1, 1024 * mib);
    void* p = h->allocate(5000, 0, false);
    void* old = h->allocate(3000, 0, false);
    void* large = h->allocate(8 * mib, 0, false);
    std::memset(large, 1, 8 * mib);
    EXPECT_TRUE(h->deallocate(large));
    EXPECT_GE(h->seg().control().purge_bytes, 8 * mib);
    ASSERT_TRUE(is_kept_when_freed(*h, old));
    const std::uint64_t serial = h->seg().control().serial;
    const std::uint64_t deadline = platform::monotonic_milliseconds() + 30000;
    while ((h->seg().control().purge_bytes >= 8 * mib || in_segment(*h) > 5056) &&
           platform::monotonic_milliseconds() < deadline) {
        ASSERT_TRUE(h->deallocate(p));
        ASSERT_EQ(h->allocate(5000, 0, false), p);
    }
    EXPECT_EQ(h->seg().control().serial, serial) << "no request but those of the kept block";
    EXPECT_LT(h->seg().control().purge_bytes, 8 * mib);
    EXPECT_EQ(in_segment(*h), 5056U) << "what else was kept has waited long enough, too";
}

TEST_F(Recycling, ThreadsNeverShareABlock) {
    const auto h = create();
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0};
    for (std::uint64_t t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            const int rounds = test::under_sanitizer ? 2000 : 20000;
            for (int i = 0; i < rounds; ++i) {
                const std::uint64_t size = 1000 + 64 * (static_cast<std::uint64_t>(i) % 3);
                void* p = h->allocate(size, 0, i % 5 == 0);
                if (p == nullptr || (i % 5 == 0 && !is_zero(p, size))) {
                    ++wrong;
                    continue;
                }
                fill(p, size, t + 10);
                if (i % 64 == 0) {
                    (void)h->stats();
                }
                wrong += holds(p, size, t + 10) ? 0 : 1;
                wrong += h->deallocate(p) ? 0 : 1;
            }
        });
    }
    for (std::thread& t : threads) {
        t.join();
    }
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(h->live_blocks(), 0U);
    EXPECT_EQ(h->stats().allocated, 0U);
    EXPECT_EQ(findings_of(*h), "");
}

}  // namespace
}  // namespace ndarena::heap
