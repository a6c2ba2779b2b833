// Deaths on the way out of transient segments: whoever comes next finds the
// segment, or removes what is left of it, and never while somebody needs it.
#include "heap/kill_sweep.hpp"
#include "heap/messages.hpp"

namespace ndarena::heap {
namespace {

class KillSweepLeaving : public KillSweepTest {
protected:
    void SetUp() override {
        if (const std::string reason = test::isolate_shared_memory(); !reason.empty()) {
            GTEST_SKIP() << reason << ": a sweep would be one of the whole host";
        }
        KillSweepTest::SetUp();
    }
    void TearDown() override { (void)::unlink(shm_path_.c_str()); }

    const std::string& watched() const override { return shm_path_; }

    void new_name() {
        name_ = "ndarena-test-" + platform::random_name();
        shm_path_ = "/dev/shm/" + name_;
    }
    std::shared_ptr<heap> open_segment(open_mode mode) const {
        segment_options o;
        o.kind = segment_kind::shared;
        o.mode = mode;
        o.path = name_;
        o.capacity = 8 * mib;
        o.transient = true;
        return open(o);
    }
    bool is_there() const { return ::access(shm_path_.c_str(), F_OK) == 0; }
    // Nobody has it, and no message is about it: with the name or without.
    void expect_gone_after_a_sweep() const {
        (void)segment::sweep_transient(heap::default_grace_ms);
        ASSERT_FALSE(is_there());
    }
    static void use(heap& h) {
        for (std::uint64_t i = 0; i < 4; ++i) {
            fill(h.allocate(5000 + i * 30000, 0, false), 5000 + i * 30000, i);
        }
    }
    std::string name_;
    std::string shm_path_;
    std::shared_ptr<heap> h_;
};

TEST_F(KillSweepLeaving, AsTheLast) {
    walk(
        [this] {
            new_name();
            return course{[this] {
                              h_ = open_segment(open_mode::append);
                              use(*h_);
                          },
                          [this] { h_.reset(); }, [this] { expect_gone_after_a_sweep(); }};
        },
        60);
}

TEST_F(KillSweepLeaving, WhileAnotherStays) {
    walk([this] {
        new_name();
        h_ = open_segment(open_mode::append);
        void* kept = h_->allocate(50000, 0, false);
        fill(kept, 50000, 9);
        return course{[this] {
                          h_.reset();  // what the child has inherited
                          h_ = open_segment(open_mode::read_write);
                          use(*h_);
                      },
                      [this] { h_.reset(); },
                      [this, kept] {
                          ASSERT_TRUE(is_there());
                          ASSERT_EQ(findings_of(*h_), "");
                          h_->reclaim(0);
                          ASSERT_EQ(findings_of(*h_), "");
                          ASSERT_EQ(h_->stats().n_blocks, 1U);
                          ASSERT_EQ(h_->stats().processes, 1U);
                          ASSERT_TRUE(holds(kept, 50000, 9));
                          h_.reset();
                          ASSERT_FALSE(is_there());
                      }};
    });
}

// What the last process has sent can be read, wherever in leaving it died.
TEST_F(KillSweepLeaving, WithAMessageOnItsWay) {
    walk([this] {
        new_name();
        auto outbox = std::make_shared<test::channel<message>>();
        return course{[this, outbox] {
                          h_ = open_segment(open_mode::append);
                          use(*h_);
                          message m;
                          std::uint64_t nbytes = 0;
                          void* p = h_->allocate(70000, 0, false);
                          fill(p, 70000, 5);
                          if (h_->identify(p, m.id, nbytes)) {
                              m.ticket = *h_->send(p, 1);
                              (void)outbox->send(m);
                          }
                      },
                      [this] { h_.reset(); },
                      [this, outbox] {
                          message m;
                          ASSERT_TRUE(outbox->receive(m));
                          ASSERT_TRUE(segment::sweep_transient(heap::default_grace_ms).empty());
                          auto h = open_segment(open_mode::read_write);
                          ASSERT_NE(h, nullptr);
                          std::uint64_t nbytes = 0;
                          const auto got = h->attach(m.id, m.ticket, nbytes);
                          ASSERT_TRUE(got) << got.err().message;
                          ASSERT_TRUE(nbytes == 70000 && holds(*got, nbytes, 5));
                          ASSERT_TRUE(h->deallocate(*got));
                          ASSERT_EQ(findings_of(*h), "");
                          ASSERT_EQ(h->stats().n_blocks, 0U);
                          h.reset();
                          ASSERT_FALSE(is_there());
                      }};
    });
}

// With arrays that are never freed: what the handler of exit does.
TEST_F(KillSweepLeaving, WithLiveArrays) {
    walk([this] {
        new_name();
        return course{[this] {
                          h_ = open_segment(open_mode::append);
                          use(*h_);
                      },
                      [this] { const_cast<segment::segment&>(h_->seg()).retire(); },
                      [this] { expect_gone_after_a_sweep(); }};
    });
}

// Whoever sweeps up after processes that were killed may be killed too.
TEST_F(KillSweepLeaving, SweepingUpAfterTheDead) {
    walk(
        [this] {
            new_name();
            (void)test::in_child([this] {
                h_ = open_segment(open_mode::append);
                use(*h_);
                ::_exit(0);
            });
            EXPECT_TRUE(is_there());
            return course{[] {}, [] { (void)segment::sweep_transient(0); },
                          [this] { expect_gone_after_a_sweep(); }};
        },
        12);
}

}  // namespace
}  // namespace ndarena::heap
