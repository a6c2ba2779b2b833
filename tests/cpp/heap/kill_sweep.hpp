// Children killed at chosen instructions of an operation, and what is left.
#pragma once

#include "heap/fixture.hpp"

#include "support/kills.hpp"
#include "support/stepping.hpp"

#include <algorithm>
#include <functional>
#include <memory>

#include <fcntl.h>
#include <sys/mman.h>

namespace ndarena::heap {

// The tables of an arena of 8 MiB, looked at from outside.
class tables {
public:
    explicit tables(const std::string& path) {
        const auto geo = segment::geometry::for_capacity(8 * mib);
        const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {  // else it has no name yet, and nobody else can see it
            last_.resize(geo.data_offset() + geo.chunk_bytes());
            data_ = ::mmap(nullptr, last_.size(), PROT_READ, MAP_SHARED, fd, 0);
            ::close(fd);
            (void)have_changed();
        }
    }
    tables(const tables&) = delete;
    tables& operator=(const tables&) = delete;
    ~tables() {
        if (!last_.empty()) {
            ::munmap(data_, last_.size());
        }
    }
    // Since it was last asked.
    bool have_changed() {
        if (last_.empty() || std::memcmp(last_.data(), data_, last_.size()) == 0) {
            return false;
        }
        std::memcpy(last_.data(), data_, last_.size());
        return true;
    }

private:
    void* data_ = nullptr;
    std::vector<std::byte> last_;
};

class KillSweepTest : public HeapTest {
protected:
    // An arena of this process with a few blocks, and a child that works in it.
    struct scene {
        std::shared_ptr<heap> h;
        std::vector<void*> kept;
    };
    using operation = std::function<void(scene&)>;

    void SetUp() override {
        if (test::under_sanitizer) {
            GTEST_SKIP() << "a sanitizer's own instructions would be stepped through";
        }
        if (!test::stepped_child([] {}, [] {}).permitted()) {
            GTEST_SKIP() << "tracing child processes is not permitted here";
        }
    }

    // Before the arena of each death is made.
    virtual void begin() {}
    scene make_scene() {
        begin();
        (void)::unlink(path_.c_str());
        scene s{create(8 * mib), {}};
        for (std::uint64_t i = 0; i < 6; ++i) {
            s.kept.push_back(s.h->allocate(5000 + i * 30000, 0, false));
            fill(s.kept.back(), 5000 + i * 30000, i);
        }
        s.h->deallocate(s.kept[2]);
        s.h->deallocate(s.kept[4]);
        s.kept[2] = s.kept[4] = nullptr;
        return s;
    }
    // What is not marked as punched has its place on the device: it is handed
    // out without asking for one, and a full disk would be a SIGBUS. Looks at
    // the first chunk of records.
    static void expect_committed(heap& h) {
        const segment::geometry& geo = h.seg().geo();
        const auto* records =
            reinterpret_cast<const segment::block_record*>(h.base() + geo.data_offset());
        std::uint64_t needed = geo.data_offset();
        for (std::uint32_t i = 0;
             i < std::min(h.seg().control().record_bump, geo.records_per_chunk()); ++i) {
            const segment::block_record& r = records[i];
            const bool holes = (r.flags & segment::block_flag::holes) != 0;
            needed += r.state == segment::block_state::unused || holes ? 0 : r.size;
        }
        ASSERT_GE(test::disk_bytes(h.seg().fd()), needed);
    }
    static void expect_sound(const scene& s) {
        ASSERT_EQ(findings_of(*s.h), "");
        s.h->reclaim(0);
        ASSERT_EQ(findings_of(*s.h), "");
        expect_committed(*s.h);
        ASSERT_EQ(s.h->stats().n_blocks, 4U) << "nothing leaked, nothing lost";
        ASSERT_EQ(s.h->stats().in_transit, 0U);
        ASSERT_EQ(s.h->stats().processes, 1U);
        for (std::uint64_t i = 0; i < s.kept.size(); ++i) {
            ASSERT_TRUE(s.kept[i] == nullptr || holds(s.kept[i], 5000 + i * 30000, i));
        }
        void* p = s.h->allocate(100 * kib, 0, true);
        ASSERT_NE(p, nullptr) << s.h->refusal();
        ASSERT_TRUE(is_zero(p, 100 * kib));
    }
    // What a child does before it is watched, what it does step by step until
    // its death, and what this process makes of it afterwards.
    struct course {
        std::function<void()> prepare;
        std::function<void()> operate;
        std::function<void()> look;
    };
    // The steps of a child that has got ready; a fixture may choose another process.
    virtual void set_out(test::stepped_child&) {}

    // The arena's file, as it is seen while a child is stepped through.
    virtual const std::string& watched() const { return path_; }

    // Each death has a course of its own. Nothing is left of a process but the
    // arena's tables and what it asked of the kernel: so the instructions worth
    // dying at are those that change a table and system calls. All of them if
    // `deaths` allows, else some from the first to the last.
    void walk(const std::function<course()>& begin, int deaths = 60) {
        std::vector<long> boundaries{0};
        long steps = 0;
        {
            const course c = begin();
            test::stepped_child whole(c.prepare, c.operate);
            set_out(whole);
            tables before(watched());
            bool kernel = whole.is_at_system_call();
            while (whole.step()) {
                ++steps;
                if (before.have_changed() || kernel) {
                    boundaries.push_back(steps);
                }
                kernel = whole.is_at_system_call();
            }
            ASSERT_TRUE(whole.finished());
            whole.kill();  // and waits for whoever else took part
            c.look();
        }
        ASSERT_GE(boundaries.size(), 10U);
        const auto states = static_cast<long>(boundaries.size());
        const long tried = std::min<long>(test::scaled_kills(deaths), states);
        test::count_deaths(tried, states, steps);
        for (long i = 0; i < tried && !HasFatalFailure(); ++i) {
            const course c = begin();
            const long boundary = boundaries[static_cast<std::size_t>(
                tried == 1 ? 0 : i * (states - 1) / (tried - 1))];
            test::stepped_child victim(c.prepare, c.operate);
            set_out(victim);
            for (long n = 0; n < boundary && victim.step(); ++n) {
            }
            victim.kill();
            SCOPED_TRACE("killed after " + std::to_string(boundary) + " of " +
                         std::to_string(steps) + " instructions");
            c.look();
        }
    }
    // The course of a child that shares the scene with this process. `after`
    // runs here before it looks.
    void sweep(const operation& prepare, const operation& operate, int deaths = 60,
               const operation& after = nothing) {
        walk(
            [&] {
                auto s = std::make_shared<scene>(make_scene());
                return course{[=] { prepare(*s); }, [=] { operate(*s); },
                              [=] {
                                  after(*s);
                                  expect_sound(*s);
                              }};
            },
            deaths);
    }
    static void nothing(scene&) {}

    // For `prepare`: in a child, where an expectation would be lost. What goes
    // wrong there ends the child, which the walk notices.
    //
    // Takes a process that is `there` after some steps to its death.
    template <class There>
    static void step_into(test::stepped_child& victim, There there) {
        while (!there() && victim.step()) {
        }
        if (!victim.running()) {
            ::_exit(1);
        }
        victim.kill();
    }
    // Some process has the lock, and has noted six lines.
    static bool is_inside_an_operation(const scene& s) {
        const std::byte* undo = s.h->base() + s.h->seg().geo().undo_offset();
        return reinterpret_cast<const segment::undo_page*>(undo)->count.load() >= 6;
    }
    // One more process dies inside `operate`.
    static void die_inside(scene& s, const operation& operate,
                           bool (*there)(const scene&) = is_inside_an_operation) {
        test::stepped_child victim([] {}, [&] { operate(s); });
        step_into(victim, [&] { return there(s); });
    }
    // Slots that nobody has had look as if their processes had died: whoever
    // needs one takes the lowest of a dead process.
    static void use_up_slots(heap& h) {
        for (std::uint32_t i = 0; i < h.seg().geo().slot_count; ++i) {
            h.seg().slot_at(i).state.store(segment::slot_in_use);
        }
    }
};

}  // namespace ndarena::heap
