// Messages of processes that have died: for how long they may be read.
#include "heap/messages.hpp"

namespace ndarena::heap {
namespace {

constexpr std::uint64_t size = 100 * kib;

class TransitDeaths : public TransitTest {
protected:
    void SetUp() override { heap_ = create(); }
    // What a process sent that was killed right after.
    message sent_by_the_dead(std::uint64_t seed) {
        test::channel<message> outbox;
        test::gate never;
        test::child sender([&] {
            EXPECT_TRUE(outbox.send(send_new(*heap_, size, seed)));
            never.wait();
        });
        message m;
        EXPECT_TRUE(outbox.receive(m));
        sender.kill();
        return m;
    }
    std::shared_ptr<heap> heap_;
};

TEST_F(TransitDeaths, AMessageOfTheDeadIsRead) {
    const message m = sent_by_the_dead(4);
    heap_->reclaim();
    EXPECT_EQ(in_transit(*heap_), 1U);
    void* p = attach_to(*heap_, m);
    ASSERT_NE(p, nullptr);
    EXPECT_TRUE(holds(p, size, 4));
    EXPECT_TRUE(heap_->deallocate(p));
    expect_empty(*heap_);
}

TEST_F(TransitDeaths, TheGraceBeginsWhenTheDeathIsNoticed) {
    const message m = sent_by_the_dead(4);
    EXPECT_EQ(token_of(*heap_, m.ticket.index).noticed, 0U);
    heap_->reclaim();
    EXPECT_NE(token_of(*heap_, m.ticket.index).noticed, 0U);
    age(*heap_, m, heap::default_grace_ms - 5000);
    EXPECT_EQ(heap_->reclaim(), 0U) << "never earlier";
    EXPECT_EQ(in_transit(*heap_), 1U);
    EXPECT_EQ(findings_of(*heap_), "");
    age(*heap_, m, heap::default_grace_ms);
    EXPECT_EQ(heap_->reclaim(), 1U);
    EXPECT_EQ(refused(*heap_, m), errc::stale);
    expect_empty(*heap_);
}

// One process reads the clock, another notices the death, the first goes on.
TEST_F(TransitDeaths, ADeathNoticedAMomentLaterIsNoLongTimeAgo) {
    const message m = sent_by_the_dead(4);
    heap_->reclaim();
    token_of(*heap_, m.ticket.index).noticed += 5000;
    EXPECT_EQ(heap_->reclaim(), 0U);
    EXPECT_EQ(in_transit(*heap_), 1U);
    EXPECT_EQ(heap_->reclaim(0), 1U);
    expect_empty(*heap_);
}

// Want of room does not shorten the grace.
TEST_F(TransitDeaths, PressureDropsNoMessage) {
    const message m = sent_by_the_dead(4);
    EXPECT_EQ(heap_->allocate(256 * mib, 0, false), nullptr);
    EXPECT_EQ(in_transit(*heap_), 1U);
    age(*heap_, m, heap::default_grace_ms);
    heap_->reclaim();
    expect_empty(*heap_);
}

TEST_F(TransitDeaths, ReclaimWithoutGraceDropsIt) {
    const message m = sent_by_the_dead(4);
    EXPECT_EQ(heap_->reclaim(0), 1U);
    EXPECT_EQ(refused(*heap_, m), errc::stale);
    expect_empty(*heap_);
}

TEST_F(TransitDeaths, AMessageOfTheLivingNeverFalls) {
    const message m = send_new(*heap_, size, 1);
    EXPECT_EQ(heap_->reclaim(0), 0U);
    EXPECT_EQ(in_transit(*heap_), 1U);
    EXPECT_CHILD_OK([&] { EXPECT_EQ(heap_->reclaim(0), 0U); });
    EXPECT_EQ(token_of(*heap_, m.ticket.index).noticed, 0U);
    EXPECT_TRUE(heap_->deallocate(attach_to(*heap_, m)));
    expect_empty(*heap_);
}

// The next owner of the dead sender's slot must not pass for the sender.
TEST_F(TransitDeaths, TheSlotsNextOwnerIsNotTheSender) {
    const message m = sent_by_the_dead(4);
    const std::uint32_t slot = segment::slot_lock::slot_of(token_of(*heap_, m.ticket.index).sender);
    ASSERT_NE(slot, heap_->seg().slot());
    // Reaps the slot but keeps the message: now the slot is free.
    heap_->reclaim();
    token_of(*heap_, m.ticket.index).noticed = 0;
    test::gate ready;
    test::gate never;
    test::child next([&] {
        EXPECT_EQ(heap_->seg().slot(), slot) << "the lowest free slot is claimed first";
        ready.post();
        never.wait();
    });
    ASSERT_TRUE(ready.wait());
    EXPECT_EQ(heap_->reclaim(), 0U);
    EXPECT_NE(token_of(*heap_, m.ticket.index).noticed, 0U) << "its sender is gone";
    EXPECT_EQ(heap_->reclaim(0), 1U);
    next.kill();
    heap_->reclaim(0);
    expect_empty(*heap_);
}

TEST_F(TransitDeaths, AReaderThatDiesGivesItBack) {
    const message m = send_new(*heap_, size, 1);
    test::gate read;
    test::gate never;
    test::child reader([&] {
        EXPECT_NE(attach_to(*heap_, m), nullptr);
        read.post();
        never.wait();
    });
    ASSERT_TRUE(read.wait());
    EXPECT_EQ(in_transit(*heap_), 0U);
    reader.kill();
    EXPECT_EQ(heap_->reclaim(), 1U);
    EXPECT_EQ(refused(*heap_, m), errc::stale);
    expect_empty(*heap_);
}

// One of three readers has died: the others still get it, and the rest of the
// hold goes with the sender.
TEST_F(TransitDeaths, AMissingReaderHoldsItOnlyWhileTheSenderLives) {
    test::channel<message> outbox;
    test::gate never;
    test::child sender([&] {
        EXPECT_TRUE(outbox.send(send_new(*heap_, size, 7, 3)));
        never.wait();
    });
    message m;
    ASSERT_TRUE(outbox.receive(m));
    for (int i = 0; i < 2; ++i) {
        void* p = attach_to(*heap_, m);
        EXPECT_TRUE(holds(p, size, 7));
        EXPECT_TRUE(heap_->deallocate(p));
    }
    EXPECT_EQ(heap_->reclaim(0), 0U);
    EXPECT_EQ(in_transit(*heap_), 1U);
    sender.kill();
    EXPECT_EQ(heap_->reclaim(0), 1U);
    expect_empty(*heap_);
}

TEST_F(TransitDeaths, AFullTableOfTheDeadIsRoomAgainAfterTheGrace) {
    test::gate sent;
    test::gate never;
    test::child sender([&] {
        void* p = heap_->allocate(size, 0, false);
        while (heap_->send(p, 1)) {
        }
        sent.post();
        never.wait();
    });
    ASSERT_TRUE(sent.wait());
    sender.kill();
    void* mine = heap_->allocate(size, 0, false);
    const auto full = heap_->send(mine, 1);
    ASSERT_FALSE(full);
    EXPECT_EQ(full.err().code, errc::no_memory);
    const std::uint32_t tokens = heap_->seg().geo().transit_count;
    EXPECT_EQ(in_transit(*heap_), tokens);
    for (std::uint32_t i = 0; i < tokens; ++i) {
        ASSERT_NE(token_of(*heap_, i).noticed, 0U) << "the refused send has looked";
        token_of(*heap_, i).noticed -= heap::default_grace_ms;
    }
    const auto again = heap_->send(mine, 1);  // looks by itself
    ASSERT_TRUE(again) << again.err().message;
    EXPECT_EQ(in_transit(*heap_), 1U);
    EXPECT_EQ(findings_of(*heap_), "");
}

// Many messages, senders killed at random: what arrived is whole, nothing stays.
TEST_F(TransitDeaths, KilledAtRandomWhileSending) {
    const int rounds = test::under_sanitizer ? 8 : 40;
    std::mt19937_64 random(5);
    for (int round = 0; round < rounds; ++round) {
        test::channel<message> outbox;
        const std::uint64_t seed = random();
        test::child sender([&] {
            for (std::uint64_t i = 0;; ++i) {
                if (!outbox.send(send_new(*heap_, 1000 + i % 5000, seed + i))) {
                    return;
                }
            }
        });
        message m;
        const auto limit = random() % 300;
        for (std::uint64_t i = 0; i < limit; ++i) {
            ASSERT_TRUE(outbox.receive(m));
            void* p = attach_to(*heap_, m);
            ASSERT_TRUE(holds(p, 1000 + i % 5000, seed + i));
            ASSERT_TRUE(heap_->deallocate(p));
        }
        sender.kill();
        ASSERT_EQ(findings_of(*heap_), "");
        heap_->reclaim(0);
        expect_empty(*heap_);
        ASSERT_FALSE(HasFailure());
    }
}

}  // namespace
}  // namespace ndarena::heap
