// What each adaptor does that the others do not.
#include "resources/upstreams.hpp"

#include "support/build.hpp"
#include "support/process.hpp"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <thread>

namespace ndarena::resources {
namespace {

constexpr std::size_t kib = 1024;

TEST(Limiting, IsExactAndSharedByChains) {
    auto within = std::make_shared<limit>(10 * kib);
    auto upstream = std::make_shared<strict_malloc>();
    limiting_adaptor one(within, upstream, nullptr);
    limiting_adaptor other(within, upstream, nullptr);
    void* a = one.allocate(6 * kib, 16, false);
    ASSERT_NE(a, nullptr);
    EXPECT_EQ(other.allocate(4 * kib + 1, 16, false), nullptr);
    void* b = other.allocate(4 * kib, 16, false);
    ASSERT_NE(b, nullptr);
    EXPECT_EQ(one.reallocate(a, 6 * kib, 6 * kib + 1, 16), nullptr);
    a = one.reallocate(a, 6 * kib, kib, 16);
    EXPECT_EQ(within->used, 5 * kib);
    one.deallocate(a, kib, 16);
    other.deallocate(b, 4 * kib, 16);
    EXPECT_EQ(within->used, 0U);
    // What the upstream refuses is not used up.
    upstream->refuse_from = 100;
    EXPECT_EQ(one.allocate(200, 16, false), nullptr);
    EXPECT_EQ(within->used, 0U);
}

TEST(Limiting, ThreadsNeverExceedIt) {
    auto within = std::make_shared<limit>(10 * kib);
    limiting_adaptor r(within, std::make_shared<strict_malloc>(), nullptr);
    std::atomic<std::size_t> held{0};
    std::atomic<bool> exceeded{false};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < 2000; ++i) {
                void* p = r.allocate(3 * kib, 16, false);
                if (p == nullptr) {
                    continue;
                }
                if (held.fetch_add(3 * kib) + 3 * kib > 10 * kib) {
                    exceeded = true;
                }
                held.fetch_sub(3 * kib);
                r.deallocate(p, 3 * kib, 16);
            }
        });
    }
    for (auto& t : threads) {
        t.join();
    }
    EXPECT_FALSE(exceeded);
    EXPECT_EQ(within->used, 0U);
}

TEST(Threshold, SizesDecideAndMoveWhatCrosses) {
    auto large = std::make_shared<strict_malloc>();
    auto small = std::make_shared<strict_malloc>();
    threshold_adaptor r(1000, large, small, nullptr);
    void* p = r.allocate(999, 16, false);
    EXPECT_EQ(small->n_live(), 1U);
    p = r.reallocate(p, 999, 1000, 16);
    EXPECT_EQ(small->n_live(), 0U);
    EXPECT_EQ(large->n_live(), 1U);
    p = r.reallocate(p, 1000, 10, 16);
    EXPECT_EQ(large->n_live(), 0U);
    r.deallocate(p, 10, 16);
}

TEST(Fallback, WhatIsMovedToTheSecondStaysThere) {
    auto first = std::make_shared<strict_malloc>();
    auto then = std::make_shared<strict_malloc>();
    first->refuse_from = 1000;
    fallback_adaptor r(first, then, nullptr);
    void* p = r.allocate(500, 16, false);
    EXPECT_EQ(first->n_live(), 1U);
    std::memset(p, 7, 500);
    p = r.reallocate(p, 500, 5000, 16);
    ASSERT_NE(p, nullptr);
    EXPECT_EQ(first->n_live(), 0U);
    EXPECT_EQ(then->n_live(), 1U);
    EXPECT_EQ(static_cast<unsigned char*>(p)[499], 7);
    p = r.reallocate(p, 5000, 20, 16);
    EXPECT_EQ(then->n_live(), 1U);
    then->refuse_from = 1;
    EXPECT_EQ(r.reallocate(p, 20, 3000, 16), nullptr);
    r.deallocate(p, 20, 16);
    EXPECT_EQ(then->n_live(), 0U);
}

TEST(Locked, WithinTheLimitOfTheProcess) {
    if (test::under_sanitizer) {
        GTEST_SKIP() << "sanitizers turn mlock into nothing";
    }
    test::child child([] {
        const rlimit little{64 * kib, 64 * kib};
        ASSERT_EQ(::setrlimit(RLIMIT_MEMLOCK, &little), 0);
        // Root may lock what it wants.
        ASSERT_TRUE(::geteuid() != 0 || ::setresuid(65534, 65534, 65534) == 0);
        auto last = std::make_shared<std::atomic<int>>(0);
        auto upstream = std::make_shared<strict_malloc>();
        locked_adaptor r(last, upstream, nullptr);
        for (int i = 0; i < 100; ++i) {  // what is freed may be locked again
            void* p = r.allocate(40 * kib, 16, false);
            ASSERT_NE(p, nullptr);
            r.deallocate(p, 40 * kib, 16);
        }
        EXPECT_EQ(*last, 0);
        EXPECT_EQ(r.allocate(80 * kib, 16, false), nullptr);
        EXPECT_NE(*last, 0);
        EXPECT_EQ(upstream->n_live(), 0U);
    });
    EXPECT_EQ(child.wait(), 0);
}

TEST(Arena, RefusesWhatIsNewOnceClosed) {
    heap::segment_options o;
    o.kind = heap::segment_kind::scratch;
    o.path = "/tmp";
    o.capacity = std::uint64_t{1} << 20;
    auto h = heap::heap::open(o);
    ASSERT_TRUE(h);
    auto closed = std::make_shared<std::atomic<bool>>(false);
    arena_resource r(**h, *h, closed, nullptr);
    void* p = r.allocate(1000, 16, false);
    closed->store(true);
    EXPECT_EQ(r.allocate(1, 16, false), nullptr);
    EXPECT_EQ(r.reallocate(p, 1000, 2000, 16), nullptr);
    p = r.reallocate(p, 1000, 500, 16);
    EXPECT_NE(p, nullptr);
    r.deallocate(p, 500, 16);
    EXPECT_EQ((*h)->live_blocks(), 0U);
}

TEST(SizeMap, KnowsWhatWasPutIn) {
    size_map sizes;
    char things[3];
    EXPECT_TRUE(sizes.insert(&things[0], 10));
    auto moving = sizes.take_out(&things[0]);
    ASSERT_TRUE(moving);
    EXPECT_EQ(moving.mapped(), 10U);
    EXPECT_FALSE(sizes.take(&things[0]));
    EXPECT_TRUE(sizes.insert(&things[0], 11)) << "somebody else has it meanwhile";
    sizes.put(std::move(moving), &things[1], 20);
    EXPECT_EQ(sizes.take(&things[1]).mapped(), 20U);
    EXPECT_EQ(sizes.take(&things[0]).mapped(), 11U);
    EXPECT_FALSE(sizes.take(&things[2]));
}

// A fork in the midst of other threads' work leaves the child able to work.
TEST(ForkMutex, TheChildCanGoOn) {
    fallback_adaptor r(std::make_shared<strict_malloc>(), std::make_shared<strict_malloc>(),
                       nullptr);
    size_map sizes;
    std::atomic<bool> stop{false};
    std::thread busy([&] {
        int key = 0;
        while (!stop.load()) {
            sizes.insert(&key, 1);
            sizes.take(&key);
        }
    });
    for (int i = 0; i < 200; ++i) {
        const pid_t pid = ::fork();
        ASSERT_GE(pid, 0);
        if (pid == 0) {
            ::alarm(20);  // instead of waiting for ever
            int key = 0;
            const bool ok = sizes.insert(&key, 3) && sizes.take(&key).mapped() == 3;
            ::_exit(ok ? 0 : 1);
        }
        int status = 0;
        ASSERT_EQ(::waitpid(pid, &status, 0), pid);
        ASSERT_EQ(status, 0);
    }
    stop = true;
    busy.join();
}

}  // namespace
}  // namespace ndarena::resources
