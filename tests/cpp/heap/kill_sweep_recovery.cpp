// Deaths inside recovery: whoever finishes what a dead process began is itself
// killed, and the next finishes that.
#include "heap/kill_sweep.hpp"

#include "support/instance.hpp"

#include <filesystem>

namespace ndarena::heap {
namespace {

class KillSweepRecovery : public KillSweepTest {
protected:
    static void allocate_one(scene& s) { (void)s.h->allocate(40000, 0, false); }
    static void allocate_much(scene& s) { (void)s.h->allocate(5 * mib, 0, false); }
    // The file has been lengthened, and the watermark not yet raised.
    static bool is_extending(const scene& s) {
        const auto bytes = s.h->seg().file_bytes();
        return bytes && *bytes > s.h->seg().control().watermark;
    }
};

TEST_F(KillSweepRecovery, InheritTheLock) {
    sweep([](scene& s) { die_inside(s, allocate_one); }, allocate_one, 30);
}
TEST_F(KillSweepRecovery, InheritTheLockInTheMiddleOfAFree) {
    static void* mine = nullptr;
    static void* theirs = nullptr;
    sweep(
        [](scene& s) {
            mine = s.h->allocate(200 * kib, 0, false);
            test::stepped_child victim(
                [&] {
                    s.h->deallocate(mine);  // inherited
                    theirs = s.h->allocate(70 * kib, 0, false);
                },
                [&] { s.h->deallocate(theirs); });
            step_into(victim, [&] { return is_inside_an_operation(s); });
        },
        [](scene& s) { s.h->deallocate(mine); }, 30);
}
TEST_F(KillSweepRecovery, InheritTheLockOfCommitting) {
    sweep([](scene& s) { die_inside(s, allocate_much, is_extending); }, allocate_much, 30);
}
TEST_F(KillSweepRecovery, ReapTheHolderOfTheLock) {
    sweep([](scene& s) { die_inside(s, allocate_one); }, [](scene& s) { (void)s.h->reclaim(0); },
          30);
}
TEST_F(KillSweepRecovery, ReapTheHolderOfTheLockOfCommitting) {
    sweep([](scene& s) { die_inside(s, allocate_much, is_extending); },
          [](scene& s) { (void)s.h->reclaim(0); }, 30);
}
TEST_F(KillSweepRecovery, Grow) {
    sweep(
        nothing, [](scene& s) { (void)s.h->grow(16 * mib); }, 20);
}

// A process that joins others, one of which died inside an operation.
class KillSweepJoining : public KillSweepTest {
protected:
    void join_after_a_death(bool into_its_slot) {
        sweep(
            [=](scene& s) {
                s.h.reset();  // what this child has inherited
                std::shared_ptr<heap> theirs;
                test::stepped_child victim(
                    [&] {
                        theirs = attach();
                        if (into_its_slot) {
                            use_up_slots(*theirs);
                        }
                    },
                    [&] { (void)theirs->allocate(40000, 0, false); });
                step_into(victim, [this] { return noted_in_file() >= 6; });
            },
            [this](scene&) { joined_ = attach(); }, 12);
    }
    std::uint64_t noted_in_file() const {
        std::uint64_t count = 0;
        const int fd = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
        (void)!::pread(fd, &count, sizeof count,
                       static_cast<off_t>(segment::geometry().undo_offset()));
        ::close(fd);
        return count;
    }
    std::shared_ptr<heap> joined_;
};

TEST_F(KillSweepJoining, WhereOneDied) { join_after_a_death(false); }
TEST_F(KillSweepJoining, IntoTheSlotOfADeadHolder) { join_after_a_death(true); }

// Nobody lives but the one that is killed.
class KillSweepAlone : public KillSweepJoining {
protected:
    // An arena whose only process died inside an operation.
    void leave_an_arena() {
        (void)::unlink(path_.c_str());
        scene s;
        test::stepped_child owner(
            [&] {
                s = make_scene();
                (void)s.h->send(s.kept[1], 1);
            },
            [&] { (void)s.h->allocate(40000, 0, false); });
        step_into(owner, [this] { return noted_in_file() >= 6; });
    }
    void expect_sound_alone() {
        const auto h = attach();
        ASSERT_NE(h, nullptr);
        ASSERT_EQ(findings_of(*h), "");
        h->reclaim(0);
        ASSERT_EQ(findings_of(*h), "");
        const statistics s = h->stats();
        ASSERT_EQ(s.n_blocks, 0U);
        ASSERT_EQ(s.in_transit, 0U);
        ASSERT_EQ(s.processes, 1U);
        void* p = h->allocate(mib, 0, true);
        ASSERT_NE(p, nullptr) << h->refusal();
        ASSERT_TRUE(is_zero(p, mib));
    }
    void expect_no_other_file() {
        for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) {
            ASSERT_EQ(entry.path().string(), path_);
        }
    }
};

TEST_F(KillSweepAlone, OpenWhereAllDied) {
    walk(
        [this] {
            leave_an_arena();
            return course{[] {}, [this] { joined_ = attach(); }, [this] { expect_sound_alone(); }};
        },
        12);
}
TEST_F(KillSweepAlone, OpenAfterAReboot) {
    walk(
        [this] {
            leave_an_arena();
            const std::uint64_t boot =
                segment::geometry().control_offset() + offsetof(segment::control_page, boot);
            test::poke(path_, boot, "another boot", 12);
            return course{[] {}, [this] { joined_ = attach(); }, [this] { expect_sound_alone(); }};
        },
        12);
}
TEST_F(KillSweepAlone, LeaveAFile) {
    walk(
        [this] {
            (void)::unlink(path_.c_str());
            return course{[this] {
                              const scene s = make_scene();
                              (void)s.h->send(s.kept[1], 1);
                              joined_ = s.h;
                          },
                          [this] { joined_.reset(); }, [this] { expect_sound_alone(); }};
        },
        12);
}
// A file appears whole or not at all.
TEST_F(KillSweepAlone, Create) {
    walk(
        [this] {
            (void)::unlink(path_.c_str());
            return course{[] {}, [this] { joined_ = create(8 * mib); },
                          [this] {
                              expect_no_other_file();
                              if (::access(path_.c_str(), F_OK) != 0) {
                                  ASSERT_NE(create(8 * mib), nullptr);
                              }
                              expect_sound_alone();
                          }};
        },
        12);
}
// The old file or the new one.
TEST_F(KillSweepAlone, CreateInThePlaceOfAnother) {
    walk(
        [this] {
            leave_an_arena();
            return course{[] {},
                          [this] { joined_ = open(file(path_, open_mode::create, 8 * mib)); },
                          [this] { expect_sound_alone(); }};
        },
        12);
}

}  // namespace
}  // namespace ndarena::heap
