// Private means private after fork: scratch arenas and anonymous buffers
// behave like malloc in a child.
#include "heap/fixture.hpp"

#include <thread>

namespace ndarena::heap {
namespace {

enum class kind { scratch, anonymous_shared, anonymous_private };

std::ostream& operator<<(std::ostream& out, kind k) { return out << static_cast<int>(k); }

class ForkPrivate : public HeapTest, public ::testing::WithParamInterface<kind> {
protected:
    void SetUp() override {
        if (GetParam() == kind::scratch) {
            heap_ = scratch();
        } else {
            memory_ = std::make_unique<test::anonymous_memory>(
                64 * mib, GetParam() == kind::anonymous_shared);
            heap_ = open(buffer(memory_->data() + 4096, memory_->size() - 8192));
        }
        ASSERT_NE(heap_, nullptr);
        for (std::uint64_t i = 0; i < blocks_.size(); ++i) {
            blocks_[i] = heap_->allocate(sizes_[i], 0, false);
            fill(blocks_[i], sizes_[i], i);
        }
    }
    bool intact(std::uint64_t seed = 0) const {
        bool good = true;
        for (std::uint64_t i = 0; i < blocks_.size(); ++i) {
            good = good && holds(blocks_[i], sizes_[i], seed + i);
        }
        return good;
    }
    std::unique_ptr<test::anonymous_memory> memory_;
    std::shared_ptr<heap> heap_;
    std::array<std::uint64_t, 5> sizes_{100, 5000, 70 * kib, mib, 3 * mib};
    std::array<void*, 5> blocks_{};
};

TEST_P(ForkPrivate, TheChildSeesItsOwnCopy) {
    EXPECT_CHILD_OK([&] {
        EXPECT_TRUE(intact());
        for (std::uint64_t i = 0; i < blocks_.size(); ++i) {
            EXPECT_EQ(heap_->size_of(blocks_[i]), sizes_[i]);
            fill(blocks_[i], sizes_[i], 100 + i);
        }
        EXPECT_TRUE(intact(100));
    });
    EXPECT_TRUE(intact()) << "the child's writes reached the parent";
    EXPECT_EQ(findings_of(*heap_), "");
}

TEST_P(ForkPrivate, TheChildAllocatesAndFreesLikeTheParent) {
    EXPECT_CHILD_OK([&] {
        std::vector<void*> own;
        for (std::uint64_t i = 0; i < 200; ++i) {
            void* p = heap_->allocate(1 + i * 300, 0, i % 2 == 0);
            ASSERT_NE(p, nullptr) << heap_->refusal();
            EXPECT_TRUE(i % 2 != 0 || is_zero(p, 1 + i * 300));
            EXPECT_TRUE(heap_->contains(p));
            EXPECT_EQ(heap_->size_of(p), 1 + i * 300);
            fill(p, 1 + i * 300, i);
            own.push_back(p);
        }
        EXPECT_TRUE(intact());
        void* grown = heap_->reallocate(blocks_[1], 50000);
        ASSERT_NE(grown, nullptr);
        EXPECT_TRUE(holds(grown, sizes_[1], 1));
        EXPECT_TRUE(heap_->deallocate(grown));
        EXPECT_TRUE(heap_->deallocate(blocks_[4]));
        EXPECT_FALSE(heap_->deallocate(blocks_[4]));
        for (std::uint64_t i = 0; i < own.size(); ++i) {
            EXPECT_TRUE(holds(own[i], 1 + i * 300, i));
            EXPECT_TRUE(heap_->deallocate(own[i]));
        }
        EXPECT_TRUE(holds(blocks_[3], sizes_[3], 3));
        EXPECT_EQ(findings_of(*heap_), "");
        (void)heap_->stats();
        (void)heap_->blocks();
        (void)heap_->trim();
    });
    EXPECT_TRUE(intact());
    heap_->reclaim();
    EXPECT_EQ(heap_->live_blocks(), blocks_.size());
    EXPECT_EQ(heap_->stats().n_blocks, blocks_.size());
    EXPECT_EQ(findings_of(*heap_), "");
}

// P4: what the child still holds is not reused under it.
TEST_P(ForkPrivate, TheParentFreesAndReusesWhileTheChildHolds) {
    test::gate freed;
    test::gate seen;
    test::child heir([&] {
        EXPECT_TRUE(freed.wait());
        EXPECT_TRUE(intact());
        fill(blocks_[3], sizes_[3], 50);
        seen.post();
        EXPECT_TRUE(freed.wait());
        EXPECT_TRUE(holds(blocks_[3], sizes_[3], 50));
        EXPECT_TRUE(holds(blocks_[2], sizes_[2], 2));
        for (void* p : blocks_) {
            EXPECT_TRUE(heap_->deallocate(p));
        }
    });
    heap_->set_purge(0, 0);
    for (void* p : blocks_) {
        EXPECT_TRUE(heap_->deallocate(p));
    }
    heap_->trim();
    std::vector<void*> fresh;
    for (int i = 0; i < 10; ++i) {
        fresh.push_back(heap_->allocate(mib, 0, false));
        ASSERT_NE(fresh.back(), nullptr);
        std::memset(fresh.back(), 0xEE, mib);
    }
    freed.post();
    ASSERT_TRUE(seen.wait());
    for (void* p : fresh) {
        EXPECT_TRUE(heap_->deallocate(p));
    }
    heap_->trim();
    for (const std::uint64_t size : sizes_) {
        std::memset(heap_->allocate(size, 0, false), 0xDD, size);
    }
    freed.post();
    EXPECT_EQ(heir.wait(), 0);
    EXPECT_EQ(findings_of(*heap_), "");
}

TEST_P(ForkPrivate, WhatTheChildHeldIsFreeAfterItsEnd) {
    EXPECT_CHILD_OK([&] {
        for (int i = 0; i < 20; ++i) {
            EXPECT_NE(heap_->allocate(100000, 0, false), nullptr);
        }
    });
    for (void* p : blocks_) {
        EXPECT_TRUE(heap_->deallocate(p));
    }
    heap_->reclaim();
    EXPECT_EQ(heap_->allocated_bytes(), 0U);
    EXPECT_EQ(heap_->stats().processes, 1U);
    EXPECT_EQ(findings_of(*heap_), "");
}

TEST_P(ForkPrivate, ChildrenHaveChildren) {
    EXPECT_CHILD_OK([&] {
        void* mine = heap_->allocate(200 * kib, 0, false);
        ASSERT_NE(mine, nullptr);
        fill(mine, 200 * kib, 70);
        fill(blocks_[3], sizes_[3], 60);
        EXPECT_CHILD_OK([&] {
            EXPECT_TRUE(holds(mine, 200 * kib, 70));
            EXPECT_TRUE(holds(blocks_[3], sizes_[3], 60));
            EXPECT_TRUE(holds(blocks_[2], sizes_[2], 2));
            fill(mine, 200 * kib, 71);
            fill(blocks_[3], sizes_[3], 61);
            void* p = heap_->allocate(mib, 0, true);
            ASSERT_NE(p, nullptr) << heap_->refusal();
            EXPECT_TRUE(is_zero(p, mib));
            EXPECT_TRUE(heap_->deallocate(mine));
            EXPECT_TRUE(heap_->deallocate(blocks_[2]));
            EXPECT_TRUE(heap_->deallocate(p));
            EXPECT_EQ(findings_of(*heap_), "");
        });
        EXPECT_TRUE(holds(mine, 200 * kib, 70));
        EXPECT_TRUE(holds(blocks_[3], sizes_[3], 60));
        EXPECT_TRUE(heap_->deallocate(mine));
        EXPECT_EQ(findings_of(*heap_), "");
    });
    EXPECT_TRUE(intact());
    EXPECT_EQ(findings_of(*heap_), "");
}

TEST_P(ForkPrivate, ADeadChildIsDeadWhileItsOwnChildLives) {
    test::gate ready;
    test::gate end;
    test::child parent([&] {
        test::child heir([&] {
            ready.post();
            end.wait();
        });
        (void)heir.wait();
    });
    ASSERT_TRUE(ready.wait());
    parent.kill();
    heap_->reclaim();
    EXPECT_EQ(heap_->stats().processes, GetParam() == kind::scratch ? 2U : 1U);
    end.post();
    EXPECT_TRUE(intact());
    EXPECT_EQ(findings_of(*heap_), "");
}

TEST_P(ForkPrivate, ManyGenerationsLeaveNothingBehind) {
    for (int i = 0; i < 100; ++i) {
        EXPECT_CHILD_OK([&] {
            EXPECT_TRUE(intact());
            EXPECT_NE(heap_->allocate(1000, 0, false), nullptr);
        });
    }
    heap_->reclaim();
    EXPECT_EQ(heap_->stats().n_blocks, blocks_.size());
    EXPECT_EQ(heap_->stats().processes, 1U);
    EXPECT_TRUE(intact());
    EXPECT_EQ(findings_of(*heap_), "");
}

TEST_P(ForkPrivate, ForkingWhileThreadsAllocate) {
    if (test::under_tsan) {
        GTEST_SKIP() << "ThreadSanitizer does not follow threads into a fork child";
    }
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (std::uint64_t t = 0; t < 3; ++t) {
        threads.emplace_back([&, t] {
            std::mt19937_64 random(t);
            while (!stop) {
                const std::uint64_t size = 1 + random() % 300000;
                void* p = heap_->allocate(size, 0, false);
                if (p != nullptr) {
                    fill(p, std::min<std::uint64_t>(size, 1000), t);
                    heap_->deallocate(p);
                }
            }
        });
    }
    for (int i = 0; i < 30; ++i) {
        EXPECT_CHILD_OK([&] {
            EXPECT_TRUE(intact());
            void* p = heap_->allocate(100000, 0, true);
            ASSERT_NE(p, nullptr) << heap_->refusal();
            EXPECT_TRUE(is_zero(p, 100000));
            EXPECT_TRUE(heap_->deallocate(p));
            EXPECT_TRUE(heap_->deallocate(blocks_[0]));
            EXPECT_EQ(findings_of(*heap_), "");
        });
    }
    stop = true;
    for (auto& t : threads) {
        t.join();
    }
    EXPECT_TRUE(intact());
    heap_->reclaim();
    EXPECT_EQ(heap_->live_blocks(), blocks_.size());
    EXPECT_EQ(heap_->stats().n_blocks, blocks_.size());
    EXPECT_EQ(findings_of(*heap_), "");
}

// Tables made after the fork lie in what the child sees privately.
TEST_P(ForkPrivate, TablesMadeAfterTheForkAreSeenByTheChild) {
    test::gate grown;
    test::gate held;
    test::child heir([&] {
        EXPECT_TRUE(grown.wait());
        EXPECT_TRUE(heap_->deallocate(blocks_[0]));
        EXPECT_EQ(findings_of(*heap_), "");
        held.post();
    });
    std::vector<void*> many;
    for (int i = 0; i < 5000; ++i) {
        many.push_back(heap_->allocate(64, 0, false));
        ASSERT_NE(many.back(), nullptr);
    }
    for (std::size_t i = 0; i < many.size(); i += 2) {
        heap_->deallocate(many[i]);
    }
    grown.post();
    EXPECT_TRUE(held.wait());
    EXPECT_EQ(heir.wait(), 0);
    EXPECT_EQ(findings_of(*heap_), "");
    EXPECT_TRUE(intact());
}

TEST_P(ForkPrivate, AChildThatNobodyToldRefuses) {
    EXPECT_EQ(test::in_raw_child([&] {
                  EXPECT_EQ(heap_->allocate(100, 0, false), nullptr);
                  EXPECT_NE(heap_->refusal().find("fork"), std::string::npos) << heap_->refusal();
                  EXPECT_EQ(heap_->reallocate(blocks_[1], 100000), nullptr);
                  EXPECT_TRUE(heap_->deallocate(blocks_[0])) << "taken, but nothing is freed";
                  EXPECT_EQ(heap_->trim(), 0U);
                  EXPECT_EQ(heap_->reclaim(), 0U);
                  heap_.reset();
              }),
              0);
    EXPECT_TRUE(intact());
    EXPECT_EQ(heap_->live_blocks(), blocks_.size());
    EXPECT_EQ(heap_->stats().n_blocks, blocks_.size());
    EXPECT_TRUE(heap_->deallocate(blocks_[0]));
    EXPECT_NE(heap_->allocate(100, 0, false), nullptr);
    EXPECT_EQ(findings_of(*heap_), "");
}

std::string name_of(const ::testing::TestParamInfo<kind>& tested) {
    const char* const names[] = {"scratch", "anonymous_shared", "anonymous_private"};
    return names[static_cast<std::size_t>(tested.param)];
}

INSTANTIATE_TEST_SUITE_P(Of, ForkPrivate,
                         ::testing::Values(kind::scratch, kind::anonymous_shared,
                                           kind::anonymous_private),
                         name_of);

}  // namespace
}  // namespace ndarena::heap
