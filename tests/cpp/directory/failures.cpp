// Reads that fail, and memory that runs out, at every point there is.
#include "directory/fixture.hpp"

#include "support/failing_new.hpp"

namespace ndarena::directory {
namespace {

class Failures : public TreeTest {
protected:
    static constexpr std::size_t keys = 700;

    static std::string numbered(std::size_t i) {
        return "a name that is longer than a short string/" + std::to_string(1000 + i);
    }
    static std::string value_of(std::size_t i) { return std::string(100, 'v') + std::to_string(i); }
    void SetUp() override {
        editor changes(store_, id_, {});
        for (std::size_t i = 0; i < keys; ++i) {
            ASSERT_TRUE(changes.assign(numbered(i), value_of(i), nullptr));
            model_[numbered(i)] = value_of(i);
        }
        commit(changes);
        stored_ = store_.pages;
    }
    // Runs `f` with one more read each time, until none fails. How often one did.
    template <class F>
    std::uint64_t with_failing_reads(F&& f) {
        for (std::uint64_t reads = 0;; ++reads) {
            store_.reads_left = reads;
            const auto done = f();
            store_.reads_left = page_store::never;
            if (done) {
                return reads;
            }
            EXPECT_EQ(done.err().code, errc::os) << done.err().message;
            if (done.err().code != errc::os) {
                return reads;
            }
        }
    }
    void expect_state(editor& changes, const model_map& model) {
        auto at = model.begin();
        const auto done = changes.scan("", [&](std::string_view key, std::string_view value) {
            const bool same = at != model.end() && at->first == key && at->second == value;
            at = same ? std::next(at) : at;
            return same;
        });
        ASSERT_TRUE(done) << done.err().message;
        ASSERT_EQ(at, model.end());
        ASSERT_EQ(*changes.count(), model.size());
    }
    // One change, after `before` others, with memory for ever more requests.
    struct failures {
        unsigned broken = 0;
        unsigned intact = 0;
    };
    template <class Change>
    failures starve(const std::vector<std::size_t>& erased_before, const model_map& after,
                    Change&& change) {
        failures seen;
        for (long requests = 0;; ++requests) {
            editor changes(store_, id_, root_);
            model_map before = model_;
            for (const std::size_t i : erased_before) {
                EXPECT_TRUE(*changes.erase(numbered(i), nullptr));
                before.erase(numbered(i));
            }
            result<bool> done = false;
            {
                const test::memory_for allowed(requests);
                done = change(changes);
            }
            EXPECT_EQ(store_.pages, stored_) << "a stored page changed before write()";
            if (done) {
                EXPECT_FALSE(changes.is_broken());
                expect_state(changes, after);
                break;
            }
            EXPECT_EQ(done.err().code, errc::no_memory) << done.err().message;
            if (done.err().code != errc::no_memory) {
                break;
            }
            if (changes.is_broken()) {
                ++seen.broken;
                std::string value;
                EXPECT_EQ(changes.find(numbered(1), value).err().code, errc::no_memory);
                EXPECT_EQ(changes.write(store_.placer()).err().code, errc::no_memory);
            } else {
                ++seen.intact;
                expect_state(changes, before);
                EXPECT_TRUE(change(changes)) << "with memory it goes on";
                expect_state(changes, after);
            }
        }
        return seen;
    }

    model_map model_;
    page_store::page_map stored_;
};

TEST_F(Failures, ReadsOfAView) {
    const auto one = [&]() -> result<bool> {
        std::string value = "untouched";
        auto found = view().find(numbered(5), value);
        EXPECT_EQ(value, found ? value_of(5) : "untouched");
        return found;
    };
    EXPECT_EQ(with_failing_reads(one), 2U) << "levels of the tree";
    const auto count = [&] { return view().count(); };
    EXPECT_EQ(with_failing_reads(count), 1U);
    std::size_t seen = 0;
    const auto scan = [&]() -> result<void> {
        seen = 0;
        return view().scan(numbered(300), [&](auto, auto) { return ++seen < 200; });
    };
    EXPECT_GT(with_failing_reads(scan), 5U);
    EXPECT_EQ(seen, 200U);
    const auto walk = [&] { return view().walk(nullptr, nullptr); };
    EXPECT_EQ(with_failing_reads(walk), stored_.size());
    const auto known = [&]() -> result<bool> {
        std::string value;
        return knowing_view().find(numbered(6), value);
    };
    EXPECT_EQ(with_failing_reads(known), 2U);
    EXPECT_EQ(with_failing_reads(known), 0U) << "all nodes on the way are known";
}

TEST_F(Failures, ReadsOfAnEditorThatHasChangedNothing) {
    for (const char* const what : {"find", "scan", "count"}) {
        const auto look = [&]() -> result<void> {
            editor changes(store_, id_, root_);
            std::string value;
            result<void> done;
            if (*what == 'f') {
                const auto found = changes.find(numbered(5), value);
                done = found ? result<void>() : found.err();
            } else if (*what == 's') {
                done = changes.scan("", [](auto, auto) { return true; });
            } else {
                const auto count = changes.count();
                done = count ? result<void>() : count.err();
            }
            EXPECT_FALSE(changes.is_broken());
            EXPECT_FALSE(changes.changed());
            return done;
        };
        EXPECT_GT(with_failing_reads(look), 0U) << what;
    }
}

TEST_F(Failures, ErrorsOfCallbacksComeBack) {
    std::size_t left = 10;
    const auto stopped = view().walk(
        [&](node_ref) -> result<void> {
            return --left == 0 ? result<void>(error{errc::closed, 7, "enough", "p"})
                               : result<void>();
        },
        nullptr);
    ASSERT_FALSE(stopped);
    EXPECT_EQ(stopped.err().code, errc::closed);
    EXPECT_EQ(stopped.err().os_errno, 7);
    EXPECT_EQ(stopped.err().message, "enough");
    EXPECT_EQ(stopped.err().path, "p");
}

TEST_F(Failures, MemoryForLooking) {
    const std::string key = numbered(5);
    for (long requests = 0;; ++requests) {
        std::string value;
        result<bool> found = false;
        {
            const test::memory_for allowed(requests);
            found = view().find(key, value);
        }
        if (found) {
            EXPECT_GT(requests, 0) << "the value is longer than a short string";
            break;
        }
        EXPECT_EQ(found.err().code, errc::no_memory);
    }
    const auto starve_walk = [&](auto&& look) {
        long requests = 0;
        for (;; ++requests) {
            result<void> done;
            {
                const test::memory_for allowed(requests);
                done = look();
            }
            if (done) {
                return requests;
            }
            EXPECT_EQ(done.err().code, errc::no_memory);
        }
    };
    EXPECT_GT(starve_walk([&] { return view().walk(nullptr, nullptr); }), 0);
    EXPECT_GT(starve_walk([&] { return view().scan("", [](auto, auto) { return true; }); }), 0);
}

// A message about damage needs memory, too.
TEST_F(Failures, MemoryForSayingWhatIsWrong) {
    store_.pages[root_.offset][100] ^= std::byte{1};
    const std::string key = numbered(5);
    bool told = false;
    for (long requests = 0; !told; ++requests) {
        std::string value;
        result<bool> found = false;
        {
            const test::memory_for allowed(requests);
            found = view().find(key, value);
        }
        ASSERT_FALSE(found);
        told = found.err().code == errc::corruption;
        EXPECT_TRUE(told || found.err().code == errc::no_memory);
    }
}

TEST_F(Failures, MemoryForAssigning) {
    model_map after = model_;
    std::string key = numbered(5);
    after[key] = "new";
    auto seen = starve({}, after, [&](editor& e) { return e.assign(key, "new", nullptr); });
    EXPECT_GT(seen.intact, 0U);
    // In the middle of a full leaf: it is split.
    after = model_;
    key = numbered(300) + std::string(900, 'x');
    const std::string& value = after[key] = std::string(max_value_bytes, 'y');
    seen = starve({}, after, [&](editor& e) { return e.assign(key, value, nullptr); });
    EXPECT_GT(seen.intact, 0U);
    EXPECT_GT(seen.broken, 0U);
    // Behind the last one.
    after = model_;
    after["b"] = "last";
    seen = starve({}, after, [&](editor& e) { return e.assign("b", "last", nullptr); });
    EXPECT_GT(seen.intact, 0U);
}

TEST_F(Failures, MemoryForTheOldValue) {
    model_map after = model_;
    const std::string key = numbered(5);
    after[key] = "new";
    std::string old;
    const auto seen = starve({}, after, [&](editor& e) {
        old = std::string();
        old.shrink_to_fit();
        return e.assign(key, "new", &old);
    });
    EXPECT_EQ(old, value_of(5));
    EXPECT_GT(seen.intact, 1U);
}

TEST_F(Failures, MemoryForErasing) {
    // From a full leaf, and from one that is about to join a neighbour.
    failures all;
    std::vector<std::size_t> gone;
    for (std::size_t i = 200; i < 260; ++i) {
        model_map after = model_;
        for (const std::size_t earlier : gone) {
            after.erase(numbered(earlier));
        }
        const std::string key = numbered(i);
        after.erase(key);
        const auto seen = starve(gone, after, [&](editor& e) { return e.erase(key, nullptr); });
        all.intact += seen.intact;
        all.broken += seen.broken;
        gone.push_back(i);
    }
    EXPECT_GT(all.intact, 0U);
    EXPECT_GT(all.broken, 0U);
}

TEST_F(Failures, MemoryForTheFirstKeyAndTheNewRoot) {
    model_.clear();
    stored_.clear();
    store_.pages.clear();
    root_ = {};
    auto seen = starve({}, {{"a", "1"}}, [&](editor& e) { return e.assign("a", "1", nullptr); });
    EXPECT_GT(seen.intact + seen.broken, 0U);
    // Three of the largest entries fill a leaf; the fourth makes a second level.
    model_map after;
    for (const char c : {'a', 'b', 'c', 'd'}) {
        after[std::string(max_key_bytes, c)] = std::string(max_value_bytes, c);
    }
    seen = starve({}, after, [&](editor& e) -> result<bool> {
        for (const auto& [key, value] : after) {
            auto done = e.assign(key, value, nullptr);
            if (!done) {
                // The others went well: this one alone left the editor as it was.
                for (const auto& [earlier, ignored] : after) {
                    if (earlier == key || e.is_broken()) {
                        break;
                    }
                    EXPECT_TRUE(e.erase(earlier, nullptr));
                }
                return done;
            }
        }
        return true;
    });
    EXPECT_GT(seen.intact + seen.broken, 0U);
}

TEST_F(Failures, MemoryForWriting) {
    std::uint64_t failed = 0;
    for (long requests = 0;; ++requests) {
        editor changes(store_, id_, root_);
        for (std::size_t i = 0; i < keys; i += 100) {
            ASSERT_TRUE(*changes.assign(numbered(i), "new", nullptr));
        }
        result<node_ref> done = node_ref{};
        {
            const test::memory_for allowed(requests);  // of the pages, too
            done = changes.write(store_.placer());
        }
        if (done) {
            break;
        }
        ++failed;
        EXPECT_EQ(done.err().code, errc::no_memory);
        EXPECT_TRUE(changes.is_broken());
        for (auto at = store_.pages.begin(); at != store_.pages.end();) {
            at = stored_.count(at->first) == 0 ? store_.pages.erase(at) : std::next(at);
        }
        ASSERT_EQ(store_.pages, stored_);
        expect_tree(model_);
    }
    EXPECT_GT(failed, 0U);
}

}  // namespace
}  // namespace ndarena::directory
