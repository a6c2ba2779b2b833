// Lookups while another thread of the process, or another process, changes the
// names: the blocks of old nodes are written anew under the readers' eyes.
#include "directory/arena_names.hpp"

#include "support/build.hpp"
#include "support/process.hpp"

#include <atomic>
#include <thread>

namespace ndarena::directory {
namespace {

class NamesInParallel : public StoreTest {
protected:
    static constexpr std::uint64_t names = 200;  // several nodes, the root among them
    static constexpr std::uint64_t moving = 10;  // all of them even

    static std::string name(std::uint64_t i) { return "name/" + std::to_string(1000 + i); }

    // Every transaction gives all moving names the same version; the others
    // come and go, so that nodes are split, joined and moved.
    static void set(heap::heap& h, std::uint64_t version) {
        store& s = store::of(h);
        ASSERT_TRUE(s.begin(10000));
        for (std::uint64_t i = 0; i < names; i += names / moving) {
            entry e;
            e.descr = "'|u1'";
            e.shape = {0, static_cast<std::int64_t>(version)};
            ASSERT_TRUE(s.put(name(i), e, nullptr, true));
        }
        for (std::uint64_t i = 1; i < names; i += 2) {
            entry e;
            e.descr = "'|u1'";
            e.shape = {0, 0};
            e.attrs = std::string(version % 13, ' ');
            ASSERT_TRUE(version % 3 == 0 ? bool(s.erase(name(i + version % 2 * 2)))
                                         : bool(s.put(name(i), e, nullptr, true)));
        }
        ASSERT_TRUE(s.commit());
    }
    // Looks until the last version is there. Versions never go back.
    static std::uint64_t follow(heap::heap& h, std::uint64_t last, const std::atomic<bool>& stop) {
        std::uint64_t newest = 0;
        std::uint64_t lookups = 0;
        while (newest < last && !stop.load(std::memory_order_relaxed)) {
            for (std::uint64_t i = 0; i < names; i += names / moving) {
                entry e;
                const auto found = store::of(h).find(name(i), e);
                EXPECT_TRUE(found) << found.err().message;
                EXPECT_TRUE(found && *found && e.shape.size() == 2);
                if (!found || !*found || e.shape.size() != 2) {
                    return lookups;
                }
                const auto version = static_cast<std::uint64_t>(e.shape[1]);
                EXPECT_GE(version, newest);
                EXPECT_LE(version, last);
                newest = std::max(newest, version);
                ++lookups;
            }
        }
        return lookups;
    }
};

TEST_F(NamesInParallel, ThreadsSeeWholeVersions) {
    const auto h = create_names();
    const std::uint64_t versions = test::under_sanitizer ? 150 : 1500;
    set(*h, 1);
    std::atomic<bool> stop{false};
    std::vector<std::thread> readers;
    readers.reserve(3);
    for (int i = 0; i < 3; ++i) {
        readers.emplace_back([&] { EXPECT_GT(follow(*h, versions, stop), 0U); });
    }
    for (std::uint64_t version = 2; version <= versions && !HasFatalFailure(); ++version) {
        set(*h, version);
    }
    stop.store(HasFatalFailure());
    for (std::thread& reader : readers) {
        reader.join();
    }
    EXPECT_EQ(all_findings(*h), "");
}

// One reader was forked with what its parent had checked, the other knows nothing.
TEST_F(NamesInParallel, ProcessesSeeWholeVersions) {
    const auto h = create_names();
    const std::uint64_t versions = test::under_sanitizer ? 100 : 800;
    set(*h, 1);
    std::atomic<bool> stop{false};
    EXPECT_GT(follow(*h, 1, stop), 0U);
    test::child forked([&] { EXPECT_GT(follow(*h, versions, stop), 0U); });
    test::child opened([&] {
        const auto own = open_names(heap::open_mode::read_write);
        ASSERT_NE(own, nullptr);
        EXPECT_GT(follow(*own, versions, stop), 0U);
    });
    for (std::uint64_t version = 2; version <= versions && !HasFatalFailure(); ++version) {
        set(*h, version);
    }
    EXPECT_EQ(forked.wait(), 0);
    EXPECT_EQ(opened.wait(), 0);
    EXPECT_EQ(all_findings(*h), "");
}

}  // namespace
}  // namespace ndarena::directory
