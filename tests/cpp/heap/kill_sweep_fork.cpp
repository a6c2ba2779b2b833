// Deaths inside fork: of the process that forks, in its handlers and in fork
// itself, and of the new one, on its way to a slot of its own.
#include "heap/kill_sweep.hpp"

namespace ndarena::heap {
namespace {

class KillSweepFork : public KillSweepTest {
protected:
    void begin() override { ASSERT_EQ(::pipe(ends_), 0); }
    static void fork_and_free(scene& s) {
        if (::fork() == 0) {
            (void)s.h->deallocate(s.kept[1]);
            ::_exit(0);
        }
    }
    // The grandchild, if it came to be, has ended too.
    void wait_for_both() {
        ::close(ends_[1]);
        char byte = 0;
        EXPECT_EQ(::read(ends_[0], &byte, 1), 0);
        ::close(ends_[0]);
    }
    int ends_[2] = {-1, -1};
};

TEST_F(KillSweepFork, Fork) {
    sweep([](scene& s) { (void)s.h->send(s.kept[0], 1); }, fork_and_free, 80,
          [this](scene&) { wait_for_both(); });
}

// The only slot to be had is that of a process that died inside an operation,
// with a row to be cleared and a lock to be given back.
TEST_F(KillSweepFork, ForkIntoTheSlotOfADeadHolder) {
    sweep(
        [](scene& s) {
            die_inside(s, [](scene& v) {
                for (int i = 0; i < 3; ++i) {
                    (void)v.h->allocate(20000, 0, false);
                }
            });
            use_up_slots(*s.h);
        },
        fork_and_free, 60, [this](scene&) { wait_for_both(); });
}

class KillSweepHeir : public KillSweepFork {
protected:
    void set_out(test::stepped_child& child) override { ASSERT_TRUE(child.follow_fork()); }
};

TEST_F(KillSweepHeir, TheFirstStepsOfTheNewProcess) {
    sweep([](scene& s) { (void)s.h->send(s.kept[0], 1); }, fork_and_free, 80,
          [this](scene&) { wait_for_both(); });
}

}  // namespace
}  // namespace ndarena::heap
