// Shared segments whose names go with their last process.
#include "segment/fixture.hpp"

#include <algorithm>

#include <sys/stat.h>

namespace ndarena::segment {
namespace {

constexpr std::uint64_t grace_ms = 60000;

class Transient : public SegmentTest {
protected:
    void SetUp() override {
        if (const std::string reason = test::isolate_shared_memory(); !reason.empty()) {
            GTEST_SKIP() << reason << ": a sweep would be one of the whole host";
        }
        name_ = "ndarena-test-" + platform::random_name();
        path_ = "/dev/shm/" + name_;
    }
    void TearDown() override { (void)::unlink(path_.c_str()); }

    segment_options shared(open_mode mode, bool transient = true) const {
        segment_options o;
        o.kind = segment_kind::shared;
        o.mode = mode;
        o.path = name_;
        o.capacity = 4 * mebibyte;
        o.transient = transient;
        return o;
    }
    std::unique_ptr<segment> create(bool transient = true) const {
        auto seg = open(shared(open_mode::exclusive, transient));
        if (seg != nullptr) {
            pretend_used(*seg);
        }
        return seg;
    }
    // One more process that has it open, as far as locks can tell.
    std::unique_ptr<segment> join() const {
        auto seg = open(shared(open_mode::read_write));
        if (seg != nullptr) {
            seg->slot_at(seg->slot()).state.store(slot_in_use);
            seg->finish_opening();
        }
        return seg;
    }
    static void leave(std::unique_ptr<segment> seg) {
        seg->retire();
        seg->leave_slot();
    }
    bool is_there() const {
        struct stat st {};
        return ::stat(path_.c_str(), &st) == 0;
    }
    // Whether a sweep of the host has removed it.
    bool swept(std::uint64_t grace) const {
        const auto removed = sweep_transient(grace);
        const bool named = std::find(removed.begin(), removed.end(), name_) != removed.end();
        EXPECT_EQ(named, !is_there());
        return named;
    }
    static transit_token& put_message(segment& seg) {
        auto& t = *reinterpret_cast<transit_token*>(seg.base() + seg.geo().transit_offset());
        t = {1, 0, 0, seg.owner_word(), 1, 1};
        seg.control().transit_bump = 1;
        seg.control().in_transit = 1;
        return t;
    }
    // Of a process that is gone: what it left can be looked at.
    transit_token read_message() const {
        transit_token t{};
        const auto fd = platform::open_file(path_, false, false);
        const auto at = geometry::for_capacity(4 * mebibyte).transit_offset();
        EXPECT_TRUE(fd);
        EXPECT_EQ(::pread(fd->get(), &t, sizeof t, static_cast<off_t>(at)),
                  static_cast<ssize_t>(sizeof t));
        return t;
    }
    void write_message(const transit_token& t) const {
        test::poke(path_, geometry::for_capacity(4 * mebibyte).transit_offset(), &t, sizeof t);
    }
    std::string name_;
};

TEST_F(Transient, GoesWithTheOnlyProcess) {
    auto seg = create();
    ASSERT_TRUE(seg->is_transient());
    EXPECT_TRUE(is_there());
    leave(std::move(seg));
    EXPECT_FALSE(is_there());
}

TEST_F(Transient, GoesWithTheLastWhicheverThatIs) {
    for (const bool creator_first : {true, false}) {
        auto creator = create();
        test::gate joined;
        test::gate go;
        test::gate gone;
        test::child other([&] {
            creator.release();  // leaked on purpose: it is the parent's
            auto seg = join();
            ASSERT_NE(seg, nullptr);
            joined.post();
            ASSERT_TRUE(go.wait());
            leave(std::move(seg));
            gone.post();
        });
        ASSERT_TRUE(joined.wait());
        if (creator_first) {
            leave(std::move(creator));
            EXPECT_TRUE(is_there()) << "somebody still has it";
            EXPECT_FALSE(swept(0));
            go.post();
            ASSERT_TRUE(gone.wait());
        } else {
            go.post();
            ASSERT_TRUE(gone.wait());
            EXPECT_TRUE(is_there()) << "its creator still has it";
            EXPECT_FALSE(swept(0));
            leave(std::move(creator));
        }
        EXPECT_FALSE(is_there());
        EXPECT_EQ(test::describe_status(other.wait()), "exit status 0");
    }
}

// Two that leave at once: each sees that the other does not stay.
TEST_F(Transient, OneThatIsLeavingKeepsNothing) {
    auto first = create();
    auto second = join();
    first->retire();
    EXPECT_TRUE(is_there());
    second->retire();
    EXPECT_FALSE(is_there()) << "the first has its slot, but is about to end";
    second->leave_slot();
    first->leave_slot();
}

TEST_F(Transient, TheDeadKeepNothing) {
    auto creator = create();
    test::gate joined;
    test::gate never;
    test::child other([&] {
        creator.release();
        auto seg = join();
        joined.post();
        never.wait();
    });
    ASSERT_TRUE(joined.wait());
    other.kill();
    leave(std::move(creator));
    EXPECT_FALSE(is_there());
}

TEST_F(Transient, ReadersDoNotKeepTheName) {
    auto creator = create();
    const auto reader = open(shared(open_mode::read));
    leave(std::move(creator));
    EXPECT_FALSE(is_there());
    EXPECT_EQ(reader->header().magic, segment_magic) << "what it has mapped stays";
}

TEST_F(Transient, OthersAreLeftAlone) {
    auto seg = create(false);
    EXPECT_FALSE(seg->is_transient());
    leave(std::move(seg));
    EXPECT_TRUE(is_there());
    EXPECT_FALSE(swept(0)) << "a segment with a name of its own stays until unlink";
}

TEST_F(Transient, ForeignFilesAreLeftAlone) {
    test::write_file(path_, std::string(20000, 'x'));
    EXPECT_FALSE(swept(0));
    ASSERT_EQ(::unlink(path_.c_str()), 0);
    ASSERT_EQ(::mkdir(path_.c_str(), 0700), 0);
    EXPECT_FALSE(swept(0));
    ASSERT_EQ(::rmdir(path_.c_str()), 0);
    ASSERT_EQ(::symlink((dir_ / "elsewhere").c_str(), path_.c_str()), 0);
    EXPECT_EQ(sweep_transient(0), std::vector<std::string>{});
}

TEST_F(Transient, SweptOnceAllWereKilled) {
    test::gate ready;
    test::gate never;
    test::child creator([&] {
        auto seg = create();
        ready.post();
        never.wait();
    });
    ASSERT_TRUE(ready.wait());
    EXPECT_FALSE(swept(0)) << "never under a living process";
    creator.kill();
    EXPECT_TRUE(is_there());
    EXPECT_TRUE(swept(grace_ms)) << "no message is left to wait for";
}

TEST_F(Transient, AMessageKeepsTheNameForTheGrace) {
    leave([&] {
        auto seg = create();
        put_message(*seg);
        return seg;
    }());
    EXPECT_TRUE(is_there()) << "somebody may still read the message";
    transit_token t = read_message();
    const std::uint64_t now = platform::monotonic_milliseconds();
    EXPECT_GT(t.noticed, 0U) << "leaving starts the clock";
    EXPECT_FALSE(swept(grace_ms));
    EXPECT_LE(t.noticed, now);
    t.noticed = now + 5000;  // by a process whose clock was read a moment later
    write_message(t);
    EXPECT_FALSE(swept(grace_ms));
    t.noticed = now - grace_ms + 5000;
    write_message(t);
    EXPECT_FALSE(swept(grace_ms));
    t.noticed = now - grace_ms;
    write_message(t);
    EXPECT_TRUE(swept(grace_ms));
}

TEST_F(Transient, AMessageOfTheKilledToo) {
    test::gate ready;
    test::gate never;
    test::child creator([&] {
        auto seg = create();
        put_message(*seg);
        ready.post();
        never.wait();
    });
    ASSERT_TRUE(ready.wait());
    EXPECT_FALSE(swept(0));
    creator.kill();
    EXPECT_FALSE(swept(grace_ms));
    EXPECT_TRUE(swept(0));
}

// An opener that found the name before it was removed.
TEST_F(Transient, WhoOpensItTooLateIsTold) {
    auto creator = create();
    // As retire() would, up to the moment between unlink and unlock.
    const auto byte = lock_base + open_lock_byte;
    ASSERT_EQ(platform::try_lock_byte(creator->fd(), byte), platform::lock_answer::taken);
    const platform::file_id id = creator->id();
    test::gate starts;
    test::child late([&] {
        creator->close_descriptor();  // what it has inherited is not what it opens
        creator.release();
        starts.post();
        EXPECT_EQ(refused(shared(open_mode::read_write)), errc::not_found);
    });
    test::child maker([&] {
        creator->close_descriptor();
        creator.release();
        starts.post();
        const auto seg = open(shared(open_mode::append));
        ASSERT_NE(seg, nullptr);
        EXPECT_TRUE(seg->must_reset()) << "made anew";
        EXPECT_NE(seg->id().inode, id.inode);
    });
    ASSERT_TRUE(starts.wait());
    ASSERT_TRUE(starts.wait());
    // Until both have opened the file that is about to lose its name.
    for (const auto pid : {late.pid(), maker.pid()}) {
        ASSERT_TRUE(test::comes_to_open(pid, id.device, id.inode)) << "it did not come to open it";
    }
    ASSERT_EQ(::unlink(path_.c_str()), 0);
    platform::unlock_byte(creator->fd(), byte);
    EXPECT_EQ(test::describe_status(late.wait()), "exit status 0");
    EXPECT_EQ(test::describe_status(maker.wait()), "exit status 0");
    creator->leave_slot();
}

// What retire() and an opener do at the same time: the opener has it, or a new one.
TEST_F(Transient, OpeningAndLeavingRace) {
    const int rounds = test::under_sanitizer ? 50 : 300;
    for (int round = 0; round < rounds; ++round) {
        auto creator = create();
        ASSERT_NE(creator, nullptr);
        test::gate start;
        test::child opener([&] {
            creator.release();
            start.post();
            auto seg = open(shared(open_mode::append));
            ASSERT_NE(seg, nullptr);
            seg->slot_at(seg->slot()).state.store(slot_in_use);
            if (seg->must_reset()) {
                pretend_used(*seg);
            } else {
                seg->finish_opening();
            }
            EXPECT_TRUE(is_there()) << "it has a name while this process has it";
            EXPECT_TRUE(platform::has_name(seg->fd()));
            leave(std::move(seg));
        });
        ASSERT_TRUE(start.wait());
        leave(std::move(creator));
        ASSERT_EQ(test::describe_status(opener.wait()), "exit status 0") << "round " << round;
        ASSERT_FALSE(is_there());
    }
}

}  // namespace
}  // namespace ndarena::segment
