// Transient segments as whole processes use and leave them.
#include "heap/messages.hpp"

#include <cstdlib>

namespace ndarena::heap {
namespace {

constexpr std::uint64_t size = 100 * kib;

class TransientHeap : public TransitTest {
protected:
    void SetUp() override {
        if (const std::string reason = test::isolate_shared_memory(); !reason.empty()) {
            GTEST_SKIP() << reason << ": a sweep would be one of the whole host";
        }
        name_ = "ndarena-test-" + platform::random_name();
        shm_path_ = "/dev/shm/" + name_;
    }
    void TearDown() override { (void)::unlink(shm_path_.c_str()); }
    segment_options shared(open_mode mode) const {
        segment_options o;
        o.kind = segment_kind::shared;
        o.mode = mode;
        o.path = name_;
        o.capacity = 16 * mib;
        o.transient = true;
        return o;
    }
    std::shared_ptr<heap> join() const { return open(shared(open_mode::read_write)); }
    bool is_there() const { return ::access(shm_path_.c_str(), F_OK) == 0; }
    std::string name_;
    std::string shm_path_;
};

TEST_F(TransientHeap, GoesWhenItIsClosed) {
    auto h = open(shared(open_mode::append));
    void* p = h->allocate(size, 0, false);
    EXPECT_TRUE(is_there());
    EXPECT_NE(p, nullptr);
    h.reset();
    EXPECT_FALSE(is_there());
}

TEST_F(TransientHeap, ExitWithLiveArraysTakesTheName) {
    test::gate ready;
    test::child process([&] {
        // As an array that is never freed.
        static auto* forever = new std::shared_ptr<heap>(open(shared(open_mode::append)));
        ASSERT_NE((*forever)->allocate(size, 0, false), nullptr);
        EXPECT_TRUE(is_there());
        ready.post();
        std::exit(HasFailure() ? 1 : 0);
    });
    ASSERT_TRUE(ready.wait());
    EXPECT_EQ(test::describe_status(process.wait()), "exit status 0");
    EXPECT_FALSE(is_there());
}

TEST_F(TransientHeap, ExitLeavesTheNameToThoseWhoStay) {
    test::gate ready;
    test::gate joined;
    test::child process([&] {
        static auto* forever = new std::shared_ptr<heap>(open(shared(open_mode::append)));
        ASSERT_NE((*forever)->allocate(size, 0, false), nullptr);
        ready.post();
        ASSERT_TRUE(joined.wait());
        std::exit(HasFailure() ? 1 : 0);
    });
    ASSERT_TRUE(ready.wait());
    auto h = join();
    ASSERT_NE(h, nullptr);
    joined.post();
    EXPECT_EQ(test::describe_status(process.wait()), "exit status 0");
    EXPECT_TRUE(is_there());
    h->reclaim();
    expect_empty(*h);
    h.reset();
    EXPECT_FALSE(is_there());
}

TEST_F(TransientHeap, AForkChildIsOneWhoStays) {
    auto h = open(shared(open_mode::append));
    void* p = h->allocate(size, 0, false);
    fill(p, size, 1);
    test::gate gone;
    test::gate looked;
    test::child heir([&] {
        ASSERT_TRUE(gone.wait());
        EXPECT_TRUE(is_there());
        EXPECT_TRUE(holds(p, size, 1));
        EXPECT_EQ(blocks_in(*h), 1U);
        looked.post();
        h.reset();
        EXPECT_FALSE(is_there());
    });
    h.reset();
    gone.post();
    ASSERT_TRUE(looked.wait());
    EXPECT_EQ(test::describe_status(heir.wait()), "exit status 0");
}

TEST_F(TransientHeap, AMessageIsReadAfterItsSenderWasTheLast) {
    test::channel<message> outbox;
    EXPECT_CHILD_OK([&] {
        const auto h = open(shared(open_mode::append));
        EXPECT_TRUE(outbox.send(send_new(*h, size, 9)));
    });
    message m;
    ASSERT_TRUE(outbox.receive(m));
    ASSERT_TRUE(is_there());
    EXPECT_TRUE(segment::sweep_transient(heap::default_grace_ms).empty());
    auto h = join();
    ASSERT_NE(h, nullptr);
    void* p = attach_to(*h, m);
    ASSERT_NE(p, nullptr);
    EXPECT_TRUE(holds(p, size, 9));
    EXPECT_TRUE(h->deallocate(p));
    expect_empty(*h);
    h.reset();
    EXPECT_FALSE(is_there());
}

TEST_F(TransientHeap, AllKilledIsSweptByTheNext) {
    test::gate ready;
    test::gate never;
    std::vector<test::child> processes;
    for (int i = 0; i < 3; ++i) {
        processes.emplace_back([&] {
            const auto h = open(shared(open_mode::append));
            EXPECT_NE(h->allocate(size, 0, false), nullptr);
            ready.post();
            never.wait();
        });
        ASSERT_TRUE(ready.wait());
    }
    for (auto& process : processes) {
        EXPECT_TRUE(segment::sweep_transient(0).empty()) << "somebody has it";
        process.kill();
    }
    EXPECT_TRUE(is_there());
    const auto removed = segment::sweep_transient(heap::default_grace_ms);
    EXPECT_EQ(removed, std::vector<std::string>{name_});
    EXPECT_FALSE(is_there());
}

}  // namespace
}  // namespace ndarena::heap
