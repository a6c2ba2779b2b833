// Freed blocks that wait, and everybody else: references, other processes,
// fork children, deaths.
#include "heap/recycling.hpp"

#include "support/kills.hpp"
#include "support/stepping.hpp"

#include <algorithm>

namespace ndarena::heap {
namespace {

class RecyclingShared : public Recycling {};

TEST_F(RecyclingShared, APublishedBlockIsNeverRecycled) {
    const auto h = create();
    block_id id;
    std::uint64_t nbytes = 0;
    const auto stale = [&] {
        void* next = h->allocate(5000, 0, false);
        EXPECT_FALSE(h->attach(id, {}, nbytes)) << "the reference found another array";
        EXPECT_TRUE(h->deallocate(next));
        EXPECT_EQ(h->stats().n_blocks, 0U);
    };
    void* p = h->allocate(5000, 0, false);
    ASSERT_TRUE(h->identify(p, id, nbytes));
    EXPECT_FALSE(is_kept_when_freed(*h, p));
    stale();

    p = h->allocate(5000, 0, false);
    ASSERT_TRUE(h->retain(p));
    EXPECT_TRUE(h->deallocate(p));
    EXPECT_FALSE(is_kept_when_freed(*h, p));

    p = h->allocate(5000, 0, false);
    const auto sent = h->send(p, 1);
    ASSERT_TRUE(sent);
    ASSERT_TRUE(h->identify(p, id, nbytes));
    EXPECT_FALSE(is_kept_when_freed(*h, p));
    EXPECT_EQ(h->stats().n_blocks, 1U) << "the message holds it";
    ASSERT_TRUE(h->attach(id, *sent, nbytes));
    EXPECT_FALSE(is_kept_when_freed(*h, p));
    stale();

    p = h->allocate(5000, 0, false);
    ASSERT_TRUE(h->identify(p, id, nbytes));
    ASSERT_TRUE(h->attach(id, {}, nbytes));
    EXPECT_TRUE(h->deallocate(p));
    EXPECT_FALSE(is_kept_when_freed(*h, p));
    stale();
}

// A holder whom no publishing has announced: it is found before the block is
// handed out, and keeps the block.
TEST_F(RecyclingShared, ABlockThatSomebodyHoldsIsNotHandedOut) {
    const auto h = create();
    void* p = h->allocate(5000, 0, false);
    const auto offset = static_cast<std::uint64_t>(static_cast<std::byte*>(p) - h->base());
    auto* records =
        reinterpret_cast<segment::block_record*>(h->base() + h->seg().geo().data_offset());
    std::uint32_t record = 0;
    while (records[record].offset != offset) {
        ++record;
    }
    ++records[record].holders;
    ASSERT_TRUE(is_kept_when_freed(*h, p));
    EXPECT_NE(h->allocate(5000, 0, false), p);
    EXPECT_EQ(records[record].state, segment::block_state::allocated);
    EXPECT_EQ(records[record].holders, 1U) << "this process's hold has ended";
}

// Recycled blocks say in the segment what they were first asked for, until
// others have to know better.
TEST_F(RecyclingShared, PublishingMakesTheSizeExact) {
    const auto h = create();
    const auto recycled = [&] {
        void* p = h->allocate(5000, 0, false);
        EXPECT_TRUE(h->deallocate(p));
        EXPECT_EQ(h->allocate(5050, 0, false), p);
        return p;
    };
    const auto size_for_others = [&](const block_id& id) {
        std::uint64_t nbytes = 0;
        const auto got = h->attach(id, {}, nbytes);
        EXPECT_TRUE(got);
        return nbytes;
    };
    block_id id;
    std::uint64_t nbytes = 0;
    void* p = recycled();
    ASSERT_TRUE(h->identify(p, id, nbytes));
    EXPECT_EQ(nbytes, 5050U);
    EXPECT_EQ(size_for_others(id), 5050U);

    p = recycled();
    ASSERT_TRUE(h->retain(p));
    ASSERT_TRUE(h->identify(p, id, nbytes));
    EXPECT_EQ(size_for_others(id), 5050U);

    p = recycled();
    ASSERT_TRUE(h->send(p, 1));
    ASSERT_TRUE(h->identify(p, id, nbytes));
    EXPECT_EQ(size_for_others(id), 5050U);

    p = recycled();
    test::channel<block_id> known;
    test::child heir([&] {
        block_id mine;
        std::uint64_t size = 0;
        EXPECT_TRUE(h->identify(p, mine, size));
        EXPECT_TRUE(known.send(mine));
    });
    ASSERT_TRUE(known.receive(id));
    EXPECT_EQ(heir.wait(), 0);
    EXPECT_EQ(size_for_others(id), 5050U) << "a fork child knows it, too";
    EXPECT_EQ(findings_of(*h), "");
}

// -- other processes --

TEST_F(RecyclingShared, NothingIsKeptWhileOthersHaveTheSegmentOpen) {
    const auto h = create();
    void* p = h->allocate(5000, 0, false);
    void* q = h->allocate(5000, 0, false);
    ASSERT_TRUE(is_kept_when_freed(*h, p));
    {
        const auto other = other_process();
        EXPECT_EQ(in_segment(*h), 2 * 5056U) << "an idle process does not notice";
        EXPECT_TRUE(h->deallocate(q));
        EXPECT_EQ(in_segment(*h), 0U) << "its next operation does";
        EXPECT_FALSE(is_kept_when_freed(*h, h->allocate(5000, 0, false)));
    }
    // That they have gone is asked a few times a second.
    const std::uint64_t deadline = platform::monotonic_milliseconds() + 30000;
    bool kept = false;
    while (!kept && platform::monotonic_milliseconds() < deadline) {
        kept = is_kept_when_freed(*h, h->allocate(5000, 0, false));
    }
    EXPECT_TRUE(kept);
    EXPECT_EQ(findings_of(*h), "");
}

TEST_F(RecyclingShared, ARequestAlsoNoticesThatSomebodyHasCome) {
    const auto h = create();
    void* p = h->allocate(5000, 0, false);
    ASSERT_TRUE(is_kept_when_freed(*h, p));
    const auto other = other_process();
    EXPECT_TRUE(took_lock(*h, [&] { EXPECT_NE(h->allocate(5000, 0, false), nullptr); }));
    EXPECT_EQ(h->stats().n_blocks, 1U);
}

TEST_F(RecyclingShared, WhoComesSecondKeepsNothingEither) {
    create();
    const auto other = other_process();
    const auto h = attach();
    EXPECT_FALSE(is_kept_when_freed(*h, h->allocate(5000, 0, false)));
}

TEST_F(RecyclingShared, AForkChildInheritsNoKeptBlock) {
    const test::anonymous_memory shared(64 * mib, true);
    const test::anonymous_memory own(64 * mib);
    for (const auto& h : {scratch(), create(), open(buffer(shared.data(), shared.size())),
                          open(buffer(own.data(), own.size()))}) {
        void* p = h->allocate(5000, 0, false);
        void* live = h->allocate(6000, 0, false);
        fill(live, 6000, 7);
        ASSERT_TRUE(is_kept_when_freed(*h, p));
        test::gate allocated;
        test::gate looked;
        test::child heir([&] {
            EXPECT_FALSE(h->deallocate(p));
            EXPECT_EQ(h->live_blocks(), 1U);
            EXPECT_EQ(h->stats().n_blocks, 1U) << "what is kept was given back before";
            std::vector<std::byte*> mine;
            for (int i = 0; i < 3; ++i) {
                mine.push_back(static_cast<std::byte*>(h->allocate(5000, 0, false)));
                fill(mine.back(), 5000, 100);
            }
            allocated.post();
            EXPECT_TRUE(looked.wait());
            for (const std::byte* m : mine) {
                EXPECT_TRUE(holds(m, 5000, 100));
            }
            EXPECT_TRUE(holds(live, 6000, 7)) << "the parent has handed it out again";
        });
        ASSERT_TRUE(allocated.wait());
        std::vector<void*> mine;
        EXPECT_TRUE(h->deallocate(live));
        for (int i = 0; i < 3; ++i) {
            for (const std::uint64_t size : {5000U, 6000U}) {
                mine.push_back(h->allocate(size, 0, false));
                fill(mine.back(), size, 50);
            }
        }
        looked.post();
        EXPECT_EQ(heir.wait(), 0);
        for (std::size_t i = 0; i < mine.size(); ++i) {
            EXPECT_TRUE(holds(mine[i], i % 2 == 0 ? 5000U : 6000U, 50));
            EXPECT_TRUE(h->deallocate(mine[i]));
        }
        h->reclaim();
        EXPECT_EQ(h->stats().n_blocks, 0U);
        EXPECT_EQ(findings_of(*h), "");
    }
}

// A child may have told others of a block that both knew.
TEST_F(RecyclingShared, WhatAForkChildKnewIsNotRecycled) {
    const auto h = create();
    void* p = h->allocate(5000, 0, false);
    test::channel<block_id> told;
    EXPECT_CHILD_OK([&] {
        block_id id;
        std::uint64_t nbytes = 0;
        EXPECT_TRUE(h->identify(p, id, nbytes));
        EXPECT_TRUE(told.send(id));
    });
    block_id id;
    std::uint64_t nbytes = 0;
    ASSERT_TRUE(told.receive(id));
    h->reclaim();
    EXPECT_TRUE(h->deallocate(p));
    EXPECT_NE(h->allocate(5000, 0, false), nullptr);
    EXPECT_FALSE(h->attach(id, {}, nbytes)) << "the reference found another array";
}

TEST_F(RecyclingShared, WhatADeadProcessKeptIsReaped) {
    create();
    test::gate kept;
    test::gate never;
    test::child victim([&] {
        const auto h = attach();
        std::vector<void*> blocks;
        for (int i = 0; i < 6; ++i) {
            blocks.push_back(h->allocate(5000, 0, false));
        }
        for (void* p : blocks) {
            EXPECT_TRUE(h->deallocate(p));
        }
        EXPECT_GT(in_segment(*h), h->allocated_bytes());
        kept.post();
        never.wait();
    });
    ASSERT_TRUE(kept.wait());
    victim.kill();
    const auto h = attach();
    EXPECT_EQ(in_segment(*h), 0U);
    EXPECT_EQ(findings_of(*h), "");
}

// Killed at every place of keeping, recycling and giving back.
TEST_F(RecyclingShared, DeathAtAnyInstructionLeavesASoundArena) {
    if (test::under_sanitizer || !test::stepped_child([] {}, [] {}).permitted()) {
        GTEST_SKIP() << "tracing child processes is not possible here";
    }
    std::shared_ptr<heap> h;
    std::vector<void*> blocks;
    const auto prepare = [&] {
        h = attach();
        for (int i = 0; i < 4; ++i) {
            blocks.push_back(h->allocate(5000, 0, false));
        }
    };
    const auto operate = [&] {
        h->deallocate(blocks[0]);
        h->deallocate(h->allocate(5040, 0, false));
        h->deallocate(blocks[1]);
        h->deallocate(blocks[2]);  // no place is left: gives two back
        blocks[0] = h->allocate(7000, 0, false);
    };
    const auto begin = [&] {
        (void)::unlink(path_.c_str());
        create(8 * mib);
    };
    long steps = 0;
    {
        begin();
        test::stepped_child whole(prepare, operate);
        while (whole.step()) {
            ++steps;
        }
        ASSERT_TRUE(whole.finished());
    }
    ASSERT_GT(steps, 500);
    const int deaths = static_cast<int>(std::min<long>(test::scaled_kills(40), steps));
    test::count_deaths(deaths, steps);
    for (int i = 0; i < deaths && !HasFatalFailure(); ++i) {
        begin();
        test::stepped_child victim(prepare, operate);
        for (long n = 0; n < steps * i / deaths && victim.step(); ++n) {
        }
        victim.kill();
        const auto survivor = attach();
        ASSERT_NE(survivor, nullptr);
        ASSERT_EQ(findings_of(*survivor), "");
        ASSERT_EQ(survivor->stats().n_blocks, 0U);
    }
}

}  // namespace
}  // namespace ndarena::heap
