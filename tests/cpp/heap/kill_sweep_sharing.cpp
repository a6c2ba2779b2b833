// Deaths in the operations that several processes take part in: sending,
// taking over, reaping the dead, leaving, forking.
#include "heap/kill_sweep.hpp"
#include "heap/messages.hpp"

namespace ndarena::heap {
namespace {

class KillSweepSharing : public KillSweepTest {
protected:
    static message send(heap& h, const void* block, std::uint32_t readers = 1) {
        message m;
        std::uint64_t nbytes = 0;
        auto sent =
            h.identify(block, m.id, nbytes) ? h.send(block, readers) : result<token>(token{});
        m.ticket = sent ? *sent : token{};
        return m;
    }
    // Something of this process that only a message holds.
    static message send_new(heap& h, std::uint64_t nbytes, std::uint32_t readers = 1) {
        void* p = h.allocate(nbytes, 0, false);
        const message m = send(h, p, readers);
        h.deallocate(p);
        return m;
    }
    static void attach_to(heap& h, const message& m) {
        std::uint64_t nbytes = 0;
        (void)h.attach(m.id, m.ticket, nbytes);
    }
    static message sent_;  // of the child, between its two steps
};
message KillSweepSharing::sent_;

TEST_F(KillSweepSharing, Send) {
    sweep(nothing, [](scene& s) { (void)s.h->send(s.kept[1], 1); });
}
TEST_F(KillSweepSharing, SendWithATokenThatIsUsedAgain) {
    sweep([](scene& s) { attach_to(*s.h, send(*s.h, s.kept[0])); },
          [](scene& s) { (void)s.h->send(s.kept[1], 3); });
}
TEST_F(KillSweepSharing, SendAndLetGo) {
    sweep(nothing, [](scene& s) { (void)send_new(*s.h, 40000); });
}
TEST_F(KillSweepSharing, TakeOver) {
    sweep([](scene& s) { sent_ = send_new(*s.h, 40000); },
          [](scene& s) { attach_to(*s.h, sent_); });
}
TEST_F(KillSweepSharing, TakeOverWhatOneHas) {
    sweep([](scene& s) { sent_ = send(*s.h, s.kept[1]); },
          [](scene& s) { attach_to(*s.h, sent_); });
}
TEST_F(KillSweepSharing, TakeAShareOfAMessage) {
    sweep([](scene& s) { sent_ = send_new(*s.h, 40000, 3); },
          [](scene& s) { attach_to(*s.h, sent_); });
}
TEST_F(KillSweepSharing, AttachWeakly) {
    sweep(
        [](scene& s) {
            std::uint64_t nbytes = 0;
            s.h->identify(s.kept[1], sent_.id, nbytes);
            sent_.ticket = {};
            s.h->deallocate(s.kept[1]);
        },
        [](scene& s) { attach_to(*s.h, sent_); });
}
TEST_F(KillSweepSharing, MoveABlockThatAMessageHolds) {
    sweep(
        [](scene& s) {
            sent_.ticket = {};
            s.kept[2] = s.h->allocate(40000, 0, false);
            (void)send(*s.h, s.kept[2]);
        },
        [](scene& s) { (void)s.h->reallocate(s.kept[2], 10000); });
}
// Reaping is itself cut short: what is half reaped is finished by the next.
TEST_F(KillSweepSharing, ReclaimOfAnotherDead) {
    sweep(
        [](scene& s) {
            (void)test::in_child([&] {
                for (int i = 0; i < 3; ++i) {
                    void* p = s.h->allocate(20000, 0, false);
                    (void)s.h->send(p, 1);
                }
                (void)s.h->allocate(3000, 0, false);
            });
        },
        [](scene& s) { (void)s.h->reclaim(0); }, 80);
}
TEST_F(KillSweepSharing, LeaveTheArena) {
    sweep(
        [](scene& s) {
            for (int i = 0; i < 3; ++i) {
                (void)s.h->allocate(20000, 0, false);
            }
            (void)send_new(*s.h, 40000);
        },
        [](scene& s) { s.h.reset(); }, 80);
}
}  // namespace
}  // namespace ndarena::heap
