// Sending references and taking them over, within a process and between two.
#include "heap/messages.hpp"

namespace ndarena::heap {
namespace {

constexpr std::uint64_t size = 100 * kib;

class Transit : public TransitTest {};

TEST_F(Transit, TheMessageHoldsTheBlock) {
    const auto h = create();
    const message m = send_new(*h, size, 1);
    EXPECT_EQ(h->live_blocks(), 0U);
    EXPECT_EQ(blocks_in(*h), 1U) << "nobody but the message has it";
    EXPECT_EQ(in_transit(*h), 1U);
    EXPECT_EQ(findings_of(*h), "");
    std::uint64_t nbytes = 0;
    const auto got = h->attach(m.id, m.ticket, nbytes);
    ASSERT_TRUE(got);
    EXPECT_EQ(nbytes, size);
    EXPECT_TRUE(holds(*got, size, 1));
    EXPECT_EQ(in_transit(*h), 0U);
    EXPECT_EQ(findings_of(*h), "");
    EXPECT_TRUE(h->deallocate(*got));
    EXPECT_FALSE(h->deallocate(*got)) << "one reference, given back once";
    expect_empty(*h);
}

TEST_F(Transit, TheSecondToReadIsWeak) {
    const auto h = create();
    const message m = send_new(*h, size, 1);
    void* first = attach_to(*h, m);
    void* second = attach_to(*h, m);
    EXPECT_EQ(first, second);
    EXPECT_EQ(h->live_blocks(), 1U);
    EXPECT_TRUE(h->deallocate(first));
    EXPECT_TRUE(holds(second, size, 1)) << "the second reference keeps it";
    EXPECT_EQ(findings_of(*h), "");
    EXPECT_TRUE(h->deallocate(second));
    EXPECT_EQ(refused(*h, m), errc::stale) << "nobody has it any more";
    expect_empty(*h);
}

// Without the message's token: the block must be somebody's.
TEST_F(Transit, AMessageWithoutATokenIsWeak) {
    const auto h = create();
    void* p = h->allocate(size, 0, false);
    message m;
    std::uint64_t nbytes = 0;
    ASSERT_TRUE(h->identify(p, m.id, nbytes));
    EXPECT_EQ(attach_to(*h, m), p);
    EXPECT_TRUE(h->deallocate(p));
    EXPECT_TRUE(h->deallocate(p));
    EXPECT_FALSE(h->deallocate(p));
    EXPECT_EQ(refused(*h, m), errc::stale);
    expect_empty(*h);
}

TEST_F(Transit, EveryReaderGetsIt) {
    const auto h = create();
    const message m = send_new(*h, size, 1, 3);
    for (int reader = 0; reader < 3; ++reader) {
        EXPECT_EQ(in_transit(*h), 1U);
        void* p = attach_to(*h, m);
        ASSERT_TRUE(holds(p, size, 1));
        EXPECT_EQ(findings_of(*h), "");
        EXPECT_TRUE(h->deallocate(p));
    }
    EXPECT_EQ(refused(*h, m), errc::stale);
    expect_empty(*h);
}

TEST_F(Transit, EveryMessageHoldsItForItself) {
    const auto h = create();
    void* p = h->allocate(size, 0, false);
    const message first = send(*h, p);
    const message second = send(*h, p);
    EXPECT_NE(first.ticket.serial, second.ticket.serial);
    EXPECT_EQ(in_transit(*h), 2U);
    EXPECT_TRUE(h->deallocate(p));
    EXPECT_TRUE(h->deallocate(attach_to(*h, first)));
    EXPECT_EQ(blocks_in(*h), 1U);
    EXPECT_TRUE(h->deallocate(attach_to(*h, second)));
    expect_empty(*h);
}

TEST_F(Transit, ATokenIsUsedAgainWithAnotherSerial) {
    const auto h = create();
    const message first = send_new(*h, size, 1);
    EXPECT_TRUE(h->deallocate(attach_to(*h, first)));
    void* p = h->allocate(size, 0, false);
    const message second = send(*h, p);
    EXPECT_EQ(second.ticket.index, first.ticket.index);
    EXPECT_NE(second.ticket.serial, first.ticket.serial);
    // The old message read once more must not take the new one's hold.
    EXPECT_EQ(refused(*h, first), errc::stale);
    EXPECT_EQ(attach_to(*h, {second.id, {second.ticket.index, first.ticket.serial}}), p)
        << "weak: this process has the block";
    EXPECT_EQ(in_transit(*h), 1U);
    EXPECT_TRUE(h->deallocate(p));
    EXPECT_TRUE(h->deallocate(p));
    EXPECT_TRUE(h->deallocate(attach_to(*h, second)));
    expect_empty(*h);
}

TEST_F(Transit, AFullTableIsNoMemoryUntilSomethingIsReceived) {
    const auto h = create();
    void* p = h->allocate(size, 0, false);
    std::vector<message> sent;
    while (sent.size() < h->seg().geo().transit_count) {
        sent.push_back(send(*h, p));
        ASSERT_FALSE(HasFailure());
    }
    const auto refused = h->send(p, 1);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.err().code, errc::no_memory);
    EXPECT_EQ(findings_of(*h), "");
    EXPECT_TRUE(h->deallocate(attach_to(*h, sent[1000])));
    sent[1000] = send(*h, p);
    EXPECT_FALSE(h->send(p, 1));
    for (const message& m : sent) {
        ASSERT_TRUE(h->deallocate(attach_to(*h, m)));
    }
    EXPECT_TRUE(h->deallocate(p));
    expect_empty(*h);
}

// The child knows the arena by its path alone: its parent opens it later.
TEST_F(Transit, AnotherProcessTakesItOver) {
    create();
    test::channel<message> inbox;
    test::gate read;
    test::gate leave;
    test::child reader([&] {
        message m;
        ASSERT_TRUE(inbox.receive(m));
        const auto own = attach();
        ASSERT_NE(own, nullptr);
        void* p = attach_to(*own, m);
        ASSERT_NE(p, nullptr);
        EXPECT_TRUE(holds(p, size, 1));
        fill(p, size, 2);
        EXPECT_EQ(in_transit(*own), 0U);
        read.post();
        EXPECT_TRUE(leave.wait());
        EXPECT_TRUE(own->deallocate(p));
        EXPECT_EQ(findings_of(*own), "");
    });
    const auto h = attach();
    void* p = h->allocate(size, 0, false);
    fill(p, size, 1);
    ASSERT_TRUE(inbox.send(send(*h, p)));
    ASSERT_TRUE(read.wait());
    EXPECT_TRUE(holds(p, size, 2)) << "one memory, two processes";
    EXPECT_TRUE(h->deallocate(p));
    EXPECT_EQ(blocks_in(*h), 1U) << "the reader has it";
    leave.post();
    EXPECT_EQ(test::describe_status(reader.wait()), "exit status 0");
    expect_empty(*h);
}

TEST_F(Transit, ResultsComeBackFromAProcessThatHasLeft) {
    const auto h = create();
    test::channel<message> outbox;
    // A fork child, and one that has opened the file itself: both closed, not killed.
    EXPECT_CHILD_OK([&] { EXPECT_TRUE(outbox.send(send_new(*h, size, 5))); });
    message m;
    ASSERT_TRUE(outbox.receive(m));
    h->reclaim();
    void* p = attach_to(*h, m);
    ASSERT_NE(p, nullptr);
    EXPECT_TRUE(holds(p, size, 5));
    EXPECT_TRUE(h->deallocate(p));
    expect_empty(*h);
}

// Nobody has the arena open for a while; the message is all there is.
TEST_F(Transit, AMessageOutlivesAllProcesses) {
    create();
    test::channel<message> outbox;
    EXPECT_CHILD_OK([&] {
        const auto own = attach();
        ASSERT_NE(own, nullptr);
        EXPECT_TRUE(outbox.send(send_new(*own, size, 6)));
    });
    message m;
    ASSERT_TRUE(outbox.receive(m));
    const auto fd = platform::open_file(path_, false, false);
    ASSERT_TRUE(fd);
    if (platform::instance_of(fd->get()).mount == 0) {
        GTEST_SKIP() << "this kernel cannot tell whether the state is of this instance";
    }
    const auto h = attach();
    void* p = attach_to(*h, m);
    ASSERT_NE(p, nullptr);
    EXPECT_TRUE(holds(p, size, 6));
    EXPECT_TRUE(h->deallocate(p));
    expect_empty(*h);
}

TEST_F(Transit, OneOfManyReadersTakesTheToken) {
    create();
    constexpr int readers = 4;
    test::channel<message> inbox;
    test::gate read;
    test::gate leave;
    std::vector<test::child> children;
    for (int i = 0; i < readers; ++i) {
        children.emplace_back([&] {
            message m;
            ASSERT_TRUE(inbox.receive(m));
            const auto own = attach();
            ASSERT_NE(own, nullptr);
            void* p = attach_to(*own, m);
            ASSERT_NE(p, nullptr);
            EXPECT_TRUE(holds(p, size, 1));
            read.post();
            EXPECT_TRUE(leave.wait());
            EXPECT_TRUE(own->deallocate(p));
        });
    }
    const auto h = attach();
    void* p = h->allocate(size, 0, false);
    fill(p, size, 1);
    const message m = send(*h, p);  // one token for all of them
    for (int i = 0; i < readers; ++i) {
        ASSERT_TRUE(inbox.send(m));
    }
    for (int i = 0; i < readers; ++i) {
        ASSERT_TRUE(read.wait());
    }
    EXPECT_EQ(in_transit(*h), 0U);
    EXPECT_TRUE(h->deallocate(p));
    EXPECT_EQ(findings_of(*h), "");
    for (int i = 0; i < readers; ++i) {
        EXPECT_EQ(blocks_in(*h), 1U);
        leave.post();
    }
    for (auto& c : children) {
        EXPECT_EQ(test::describe_status(c.wait()), "exit status 0");
    }
    expect_empty(*h);
}

// An old reference leads to what it named, or nowhere: not to what its owner has
// made of it since.
TEST_F(Transit, ABlockThatOthersMayKnowIsNotResizedInPlace) {
    const auto h = create();
    void* p = h->allocate(size, 0, false);
    const message sent = send(*h, p);
    EXPECT_TRUE(h->deallocate(attach_to(*h, sent)));
    void* q = h->reallocate(p, size / 2);
    EXPECT_NE(q, p) << "sent and read";
    EXPECT_TRUE(h->deallocate(q));

    p = h->allocate(size, 0, false);
    EXPECT_CHILD_OK([&] { EXPECT_TRUE(h->send(p, 1)); });
    h->reclaim(0);
    q = h->reallocate(p, size / 2);
    EXPECT_NE(q, p) << "sent by a fork child that has died";
    EXPECT_TRUE(h->deallocate(q));
    expect_empty(*h);
}

TEST_F(Transit, ABlockThatOthersHoldIsNotResizedInPlace) {
    const auto h = create();
    const auto moves = [&](void* p, const char* why) {
        fill(p, size, 3);
        void* q = h->reallocate(p, size / 2);
        EXPECT_NE(q, p) << why;
        EXPECT_TRUE(holds(q, size / 2, 3));
        std::memset(q, 0, size / 2);
        EXPECT_TRUE(holds(p, size, 3)) << "what the other holder sees is as it was";
        EXPECT_TRUE(h->deallocate(q));
    };
    void* p = h->allocate(size, 0, false);
    ASSERT_TRUE(h->retain(p));
    moves(p, "two references of this process");
    EXPECT_TRUE(h->deallocate(p));

    p = h->allocate(size, 0, false);
    const message m = send(*h, p);
    moves(p, "a message");
    EXPECT_TRUE(h->deallocate(attach_to(*h, m)));

    p = h->allocate(size, 0, false);
    const message sent = send(*h, p);
    test::gate read;
    test::gate leave;
    test::child reader([&] {
        EXPECT_TRUE(h->deallocate(p)) << "what it has inherited";
        void* q = attach_to(*h, sent);
        read.post();
        EXPECT_TRUE(leave.wait());
        EXPECT_TRUE(holds(q, size, 3));
    });
    ASSERT_TRUE(read.wait());
    moves(p, "another process");
    leave.post();
    EXPECT_EQ(test::describe_status(reader.wait()), "exit status 0");
    h->reclaim();
    expect_empty(*h);
}

TEST_F(Transit, WhatCannotBeSent) {
    const auto h = create();
    void* p = h->allocate(size, 0, false);
    const auto inside = h->send(static_cast<char*>(p) + 64, 1);
    ASSERT_FALSE(inside);
    EXPECT_EQ(inside.err().code, errc::invalid) << "not the start of a block";
    ASSERT_TRUE(h->deallocate(p));
    EXPECT_EQ(h->send(p, 1).err().code, errc::invalid);
    EXPECT_FALSE(h->retain(p));

    const auto alone = scratch();
    void* private_block = alone->allocate(size, 0, false);
    EXPECT_FALSE(alone->can_send());
    EXPECT_EQ(alone->send(private_block, 1).err().code, errc::unsupported);
    EXPECT_TRUE(alone->retain(private_block)) << "held twice, though not sent";
    EXPECT_TRUE(alone->deallocate(private_block));
    EXPECT_TRUE(alone->deallocate(private_block));
    EXPECT_FALSE(alone->deallocate(private_block));

    const message m = send_new(*h, size, 1);
    const auto reader = open(file(path_, open_mode::read));
    EXPECT_FALSE(reader->can_send());
    EXPECT_EQ(refused(*reader, m), errc::read_only);
    EXPECT_TRUE(h->deallocate(attach_to(*h, m)));
    expect_empty(*h);
}

}  // namespace
}  // namespace ndarena::heap
