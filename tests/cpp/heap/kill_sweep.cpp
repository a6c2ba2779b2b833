// Processes killed at chosen instructions of whole operations, locks and
// system calls included; the others go on with a sound arena.
#include "heap/kill_sweep.hpp"

namespace ndarena::heap {
namespace {

class KillSweep : public KillSweepTest {};

TEST_F(KillSweep, Allocate) {
    sweep(nothing, [](scene& s) { (void)s.h->allocate(3000, 0, false); });
}
TEST_F(KillSweep, AllocateBeyondTheWatermark) {
    sweep(nothing, [](scene& s) { (void)s.h->allocate(5 * mib, 0, false); });
}
TEST_F(KillSweep, AllocateAndFree) {
    sweep(nothing, [](scene& s) { s.h->deallocate(s.h->allocate(40000, 0, false)); });
}
TEST_F(KillSweep, Free) {
    static void* p = nullptr;
    sweep([](scene& s) { p = s.h->allocate(200 * kib, 0, false); },
          [](scene& s) { s.h->deallocate(p); });
}
TEST_F(KillSweep, Resize) {
    static void* p = nullptr;
    sweep([](scene& s) { p = s.h->allocate(200 * kib, 0, false); },
          [](scene& s) {
              p = s.h->reallocate(p, 70 * kib);
              p = s.h->reallocate(p, 150 * kib);
          });
}
TEST_F(KillSweep, Purge) {
    sweep(
        [](scene& s) {
            void* p = s.h->allocate(mib, 0, false);
            std::memset(p, 1, mib);
            s.h->deallocate(p);
        },
        [](scene& s) { s.h->trim(); });
}
TEST_F(KillSweep, UsePunchedPages) {
    sweep(
        [](scene& s) {
            void* p = s.h->allocate(mib, 0, false);
            std::memset(p, 1, mib);
            s.h->deallocate(p);
            s.h->trim();
        },
        [](scene& s) { (void)s.h->allocate(mib, 0, false); });
}
// The tables themselves grow: a small arena has 128 records in a chunk.
TEST_F(KillSweep, AddRecords) {
    sweep(
        [](scene& s) {
            for (int i = 0; i < 107; ++i) {
                (void)s.h->allocate(64, 0, false);
            }
        },
        [](scene& s) {
            for (int i = 0; i < 8; ++i) {
                (void)s.h->allocate(64, 0, false);
            }
        },
        12);
}

}  // namespace
}  // namespace ndarena::heap
