// Several processes on one file, and their deaths.
#include "heap/fixture.hpp"

#include "support/kills.hpp"

namespace ndarena::heap {
namespace {

// Random operations with contents until killed or `operations` are done.
void hammer(heap& h, std::uint64_t seed, int operations) {
    struct block {
        void* p;
        std::uint64_t size;
        std::uint64_t seed;
    };
    std::mt19937_64 random(seed);
    std::vector<block> live;
    for (int i = 0; i < operations; ++i) {
        const std::uint64_t size = 1 + random() % (random() % 8 == 0 ? 400000 : 5000);
        const std::uint64_t what = random() % 10;
        if (what < 5 || live.empty()) {
            void* p = h.allocate(size, 0, random() % 3 == 0);
            ASSERT_NE(p, nullptr) << h.refusal();
            live.push_back({p, size, random()});
            fill(p, size, live.back().seed);
        } else if (what < 8 || live.size() > 30) {
            std::swap(live[random() % live.size()], live.back());
            ASSERT_TRUE(holds(live.back().p, live.back().size, live.back().seed));
            ASSERT_TRUE(h.deallocate(live.back().p));
            live.pop_back();
        } else {
            block& b = live[random() % live.size()];
            void* p = h.reallocate(b.p, size);
            ASSERT_NE(p, nullptr) << h.refusal();
            ASSERT_TRUE(holds(p, std::min(size, b.size), b.seed));
            b = {p, size, random()};
            fill(p, size, b.seed);
        }
    }
    for (const block& b : live) {
        ASSERT_TRUE(holds(b.p, b.size, b.seed));
    }
}

class Processes : public HeapTest {
protected:
    // Made by a process that has left again, so that children share nothing.
    void SetUp() override { create(512 * mib); }
    test::child worker(std::uint64_t seed, int operations) {
        return test::child([this, seed, operations] {
            const auto h = attach();
            ASSERT_NE(h, nullptr);
            h->set_purge(static_cast<std::int64_t>(seed % 3), 2 * mib);
            hammer(*h, seed, operations);
        });
    }
};

TEST_F(Processes, DoNotDisturbEachOther) {
    const int operations = test::under_sanitizer ? 1500 : 6000;
    std::vector<test::child> workers;
    for (std::uint64_t i = 0; i < 4; ++i) {
        workers.push_back(worker(i, operations));
    }
    for (auto& w : workers) {
        EXPECT_EQ(w.wait(), 0);
    }
    const auto h = attach();
    EXPECT_EQ(h->allocated_bytes(), 0U);
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(Processes, RaceForANewFile) {
    for (int round = 0; round < 20; ++round) {
        const std::string name = dir_ / ("new" + std::to_string(round));
        test::gate start;
        std::vector<test::child> workers;
        for (int i = 0; i < 4; ++i) {
            workers.emplace_back([&] {
                EXPECT_TRUE(start.wait());
                const auto h = open(file(name, open_mode::append, 16 * mib));
                ASSERT_NE(h, nullptr);
                EXPECT_NE(h->allocate(1000, 0, false), nullptr);
            });
        }
        for (int i = 0; i < 4; ++i) {
            start.post();
        }
        for (auto& w : workers) {
            ASSERT_EQ(w.wait(), 0);
        }
    }
}

TEST_F(Processes, SeeEachOthersBlocksInTheCounters) {
    const auto h = attach();
    test::gate ready;
    test::gate done;
    test::child other([&] {
        const auto own = attach();  // the heap that it has inherited
        EXPECT_EQ(own->stats().processes, 2U);
        EXPECT_NE(own->allocate(mib, 0, false), nullptr);
        ready.post();
        done.wait();
    });
    ASSERT_TRUE(ready.wait());
    EXPECT_EQ(h->stats().processes, 2U);
    EXPECT_EQ(h->stats().n_blocks, 1U);
    EXPECT_EQ(h->live_blocks(), 0U);
    EXPECT_EQ(h->reclaim(), 0U) << "it lives";
    other.kill();
    EXPECT_EQ(h->stats().processes, 1U);
    EXPECT_EQ(h->allocated_bytes(), mib);
    EXPECT_EQ(h->reclaim(), 1U);
    EXPECT_EQ(h->allocated_bytes(), 0U);
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(Processes, WhatTheDeadHeldIsReclaimedBeforeARefusal) {
    const auto h = open(file(path_, open_mode::read_write));
    test::gate ready;
    test::gate never;
    test::child other([&] {
        const auto own = attach();
        EXPECT_NE(own->allocate(400 * mib, 0, false), nullptr);
        ready.post();
        never.wait();
    });
    ASSERT_TRUE(ready.wait());
    EXPECT_EQ(h->allocate(300 * mib, 0, false), nullptr);
    other.kill();
    EXPECT_NE(h->allocate(300 * mib, 0, false), nullptr) << h->refusal();
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(Processes, KilledAtRandomLeaveASoundArena) {
    const auto h = attach();
    std::mt19937_64 random(17);
    std::vector<test::child> workers;
    for (std::uint64_t i = 0; i < 3; ++i) {
        workers.push_back(worker(i, 1 << 30));
    }
    const int kills = test::under_sanitizer ? 15 : test::scaled_kills(80);
    test::count_deaths(kills, 0);
    for (int i = 0; i < kills; ++i) {
        ::usleep(static_cast<useconds_t>(5000 + random() % 15000));
        auto& victim = workers[random() % workers.size()];
        ASSERT_EQ(::kill(victim.pid(), 0), 0) << "it has ended by itself";
        int status = 0;
        ASSERT_EQ(::waitpid(victim.pid(), &status, WNOHANG), 0)
            << "it has ended by itself: " << test::describe_status(status);
        victim.kill();
        victim = worker(random(), 1 << 30);
        if (i % 5 == 0) {
            ASSERT_EQ(findings_of(*h), "") << "after " << i << " kills";
        }
        if (i % 7 == 0) {
            h->reclaim();
        }
    }
    for (auto& w : workers) {
        w.kill();
    }
    h->reclaim();
    EXPECT_EQ(h->allocated_bytes(), 0U);
    EXPECT_EQ(h->stats().processes, 1U);
    EXPECT_EQ(findings_of(*h), "");
}

// All die at once: whoever opens the file next finishes what they began.
TEST_F(Processes, ADesertedArenaIsRecoveredOnOpening) {
    std::mt19937_64 random(23);
    const int rounds = test::under_sanitizer ? 5 : 30;
    for (int round = 0; round < rounds; ++round) {
        std::vector<test::child> workers;
        for (std::uint64_t i = 0; i < 2; ++i) {
            workers.push_back(worker(random(), 1 << 30));
        }
        ::usleep(static_cast<useconds_t>(3000 + random() % 20000));
        for (auto& w : workers) {
            ::kill(w.pid(), SIGKILL);
        }
        for (auto& w : workers) {
            w.wait();
        }
        const auto reader = open(file(path_, open_mode::read));
        (void)reader->check();
        (void)reader->stats();
        (void)reader->blocks();
        const auto h = attach();
        ASSERT_NE(h, nullptr);
        ASSERT_EQ(findings_of(*h), "");
        ASSERT_EQ(h->allocated_bytes(), 0U);
        ASSERT_NE(h->allocate(mib, 0, false), nullptr);
    }
}

TEST_F(Processes, AReaderSeesAWholeState) {
    test::child writer = worker(3, 1 << 30);
    int steady = 0;
    const auto reader = open(file(path_, open_mode::read));
    ASSERT_NE(reader, nullptr);
    const int rounds = test::under_sanitizer ? 50 : 300;
    for (int i = 0; i < rounds; ++i) {
        const auto s = reader->stats();
        if (s.committed == 0) {
            continue;  // it would not hold still
        }
        ++steady;
        ASSERT_LE(s.allocated, s.committed);
        ASSERT_LE(s.committed, s.capacity);
        const std::string findings = findings_of(*reader);
        ASSERT_TRUE(findings.empty() || findings.find("lock was not to be had") == 0) << findings;
        (void)reader->blocks();
    }
    EXPECT_GT(steady, rounds / 2);
    EXPECT_EQ(reader->allocate(100, 0, false), nullptr);
    EXPECT_NE(reader->refusal().find("mode 'r'"), std::string::npos);
    EXPECT_EQ(reader->trim(), 0U);
    EXPECT_FALSE(reader->deallocate(reader->base() + 100000));
    writer.kill();
}

TEST_F(Processes, AStoppedHolderOfTheLockIsNamed) {
    if (test::under_sanitizer) {
        GTEST_SKIP() << "waits ten seconds, which shows nothing more here";
    }
    const auto h = attach();
    void* p = h->allocate(100, 0, false);
    // As if another live process were in the middle of an operation.
    auto other = segment::segment::open(file(path_, open_mode::read_write));
    ASSERT_TRUE(other);
    (*other)->finish_opening();
    segment::slot_lock lock(&(*other)->control().heap_lock, other->get());
    ASSERT_EQ(lock.lock((*other)->owner_word()), segment::lock_outcome::acquired);
    EXPECT_TRUE(h->deallocate(p)) << "remembered, and done later";
    EXPECT_EQ(h->size_of(p), 0U);
    lock.unlock();
    EXPECT_EQ(h->allocated_bytes(), 64U + 64U);
    void* q = h->allocate(100, 0, false);
    EXPECT_EQ(h->allocated_bytes(), 64U + 64U) << "drained by the next operation";
    EXPECT_TRUE(h->deallocate(q));
    EXPECT_EQ(findings_of(*h), "");
}

}  // namespace
}  // namespace ndarena::heap
