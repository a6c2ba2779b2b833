// Shared arenas after fork: the child is one more holder of every block.
#include "heap/fixture.hpp"

#include <thread>

namespace ndarena::heap {
namespace {

class ForkShared : public HeapTest {
protected:
    void SetUp() override {
        heap_ = create();
        block_ = heap_->allocate(mib, 0, false);
        fill(block_, mib, 1);
    }
    std::shared_ptr<heap> heap_;
    void* block_ = nullptr;
};

TEST_F(ForkShared, BothSeeTheSameBytes) {
    EXPECT_CHILD_OK([&] {
        EXPECT_TRUE(holds(block_, mib, 1));
        fill(block_, mib, 2);
        EXPECT_EQ(heap_->stats().processes, 2U);
        EXPECT_EQ(heap_->size_of(block_), mib);
        EXPECT_EQ(findings_of(*heap_), "");
    });
    EXPECT_TRUE(holds(block_, mib, 2));
    EXPECT_EQ(findings_of(*heap_), "");
}

TEST_F(ForkShared, TheChildKeepsWhatTheParentFrees) {
    test::gate freed;
    test::gate looked;
    test::child heir([&] {
        EXPECT_TRUE(freed.wait());
        EXPECT_TRUE(holds(block_, mib, 1));
        EXPECT_TRUE(heap_->deallocate(block_));
        EXPECT_FALSE(heap_->deallocate(block_));
        looked.post();
    });
    EXPECT_TRUE(heap_->deallocate(block_));
    heap_->trim();
    for (int i = 0; i < 5; ++i) {
        void* p = heap_->allocate(mib, 0, false);
        ASSERT_NE(p, block_);
        std::memset(p, 0xEE, mib);
    }
    EXPECT_EQ(heap_->stats().n_blocks, 6U);
    freed.post();
    EXPECT_TRUE(looked.wait());
    EXPECT_EQ(heap_->stats().n_blocks, 5U) << "freed by its last holder";
    EXPECT_EQ(heir.wait(), 0);
    EXPECT_EQ(findings_of(*heap_), "");
}

TEST_F(ForkShared, TheParentKeepsWhatTheChildFrees) {
    EXPECT_CHILD_OK([&] {
        EXPECT_TRUE(heap_->deallocate(block_));
        EXPECT_FALSE(heap_->deallocate(block_));
    });
    EXPECT_TRUE(holds(block_, mib, 1));
    EXPECT_EQ(heap_->stats().n_blocks, 1U);
    EXPECT_TRUE(heap_->deallocate(block_));
    EXPECT_EQ(heap_->allocated_bytes(), 0U);
}

TEST_F(ForkShared, ASharedBlockIsNeverResizedInPlace) {
    test::gate moved;
    test::child heir([&] {
        EXPECT_TRUE(moved.wait());
        EXPECT_TRUE(holds(block_, mib, 1));
    });
    void* smaller = heap_->reallocate(block_, 100 * kib);
    EXPECT_NE(smaller, block_);
    EXPECT_TRUE(holds(smaller, 100 * kib, 1));
    std::memset(smaller, 0, 100 * kib);
    moved.post();
    EXPECT_EQ(heir.wait(), 0);
    EXPECT_EQ(findings_of(*heap_), "");
}

TEST_F(ForkShared, WhatADeadChildHeldIsReclaimed) {
    test::gate ready;
    test::gate never;
    test::child heir([&] {
        EXPECT_NE(heap_->allocate(5 * mib, 0, false), nullptr);
        ready.post();
        never.wait();
    });
    ASSERT_TRUE(ready.wait());
    EXPECT_TRUE(heap_->deallocate(block_));
    EXPECT_EQ(heap_->allocated_bytes(), 6 * mib);
    heir.kill();
    EXPECT_EQ(heap_->reclaim(), 2U);
    EXPECT_EQ(heap_->allocated_bytes(), 0U);
    EXPECT_EQ(findings_of(*heap_), "");
}

// A mapping that is inherited holds nothing of the process that made it.
TEST_F(HeapTest, ADeadOpenerIsDeadWhileItsChildLives) {
    test::gate ready;
    test::gate end;
    test::child opener([&] {
        auto h = create();
        ASSERT_NE(h, nullptr);
        ASSERT_NE(h->allocate(mib, 0, false), nullptr);
        test::child heir([&] {
            ready.post();
            end.wait();
        });
        ASSERT_NE(h->allocate(2 * mib, 0, false), nullptr);
        ready.post();
        (void)heir.wait();
    });
    ASSERT_TRUE(ready.wait());
    ASSERT_TRUE(ready.wait());
    opener.kill();
    auto h = attach();
    ASSERT_NE(h, nullptr);
    h->reclaim();
    EXPECT_EQ(h->stats().processes, 2U) << "this one and the child";
    EXPECT_EQ(h->allocated_bytes(), mib) << "which the child has inherited";
    end.post();
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(ForkShared, AnEndedChildLeavesItsSlot) {
    for (int i = 0; i < 400; ++i) {  // more than there are slots
        EXPECT_CHILD_OK([&] { EXPECT_NE(heap_->allocate(1000, 0, false), nullptr); });
    }
    EXPECT_EQ(heap_->stats().processes, 1U);
    heap_->reclaim();
    EXPECT_EQ(heap_->stats().n_blocks, 1U);
    EXPECT_EQ(findings_of(*heap_), "");
}

TEST_F(ForkShared, GenerationsHoldTogether) {
    test::gate go;
    test::gate done;
    test::child first([&] {
        void* mine = heap_->allocate(mib, 0, false);
        fill(mine, mib, 2);
        test::child second([&] {
            EXPECT_TRUE(go.wait());
            EXPECT_TRUE(holds(block_, mib, 1));
            EXPECT_TRUE(holds(mine, mib, 2));
            EXPECT_TRUE(heap_->deallocate(mine));
            EXPECT_TRUE(heap_->deallocate(block_));
            EXPECT_EQ(findings_of(*heap_), "");
            done.post();
        });
        EXPECT_TRUE(heap_->deallocate(mine));
        EXPECT_TRUE(heap_->deallocate(block_));
        EXPECT_EQ(second.wait(), 0);
    });
    EXPECT_TRUE(heap_->deallocate(block_));
    heap_->trim();
    std::memset(heap_->allocate(2 * mib, 0, false), 0xEE, 2 * mib);
    go.post();
    EXPECT_TRUE(done.wait());
    EXPECT_EQ(first.wait(), 0);
    heap_->reclaim();
    EXPECT_EQ(heap_->stats().n_blocks, 1U);
    EXPECT_EQ(findings_of(*heap_), "");
}

TEST_F(ForkShared, ForkingWhileThreadsAllocate) {
    if (test::under_tsan) {
        GTEST_SKIP() << "ThreadSanitizer does not follow threads into a fork child";
    }
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (std::uint64_t t = 0; t < 3; ++t) {
        threads.emplace_back([&, t] {
            std::mt19937_64 random(t);
            while (!stop) {
                heap_->deallocate(heap_->allocate(1 + random() % 300000, 0, false));
            }
        });
    }
    for (int i = 0; i < 30; ++i) {
        EXPECT_CHILD_OK([&] {
            void* p = heap_->allocate(100000, 0, true);
            ASSERT_NE(p, nullptr) << heap_->refusal();
            EXPECT_TRUE(is_zero(p, 100000));
            EXPECT_TRUE(heap_->deallocate(p));
            EXPECT_EQ(findings_of(*heap_), "");
        });
    }
    stop = true;
    for (auto& t : threads) {
        t.join();
    }
    heap_->reclaim();
    EXPECT_EQ(heap_->stats().n_blocks, 1U);
    EXPECT_EQ(findings_of(*heap_), "");
}

TEST_F(ForkShared, AChildThatNobodyToldRefuses) {
    EXPECT_EQ(test::in_raw_child([&] {
                  EXPECT_EQ(heap_->allocate(100, 0, false), nullptr);
                  EXPECT_NE(heap_->refusal().find("fork"), std::string::npos);
                  EXPECT_TRUE(heap_->deallocate(block_));
                  EXPECT_EQ(heap_->reclaim(), 0U);
                  heap_.reset();
              }),
              0);
    EXPECT_EQ(heap_->stats().n_blocks, 1U);
    EXPECT_TRUE(holds(block_, mib, 1));
    EXPECT_TRUE(heap_->deallocate(block_));
    EXPECT_EQ(findings_of(*heap_), "");
}

// A file that a child opens anew is the heap it has inherited.
TEST_F(ForkShared, OpeningAgainInTheChildIsTheSameHeap) {
    EXPECT_CHILD_OK([&] {
        EXPECT_EQ(attach(), heap_);
        EXPECT_EQ(heap::find(block_), heap_);
    });
}

}  // namespace
}  // namespace ndarena::heap
