// Fuzz target: the tree of names, and the bytes that it is read from.
//
// The first byte says what the others are: operations of transactions, which
// are compared with a map; damage to the nodes of a sound tree, which is then
// used; one node; or the value of a name.
#include "directory/entry.hpp"

#include "node_pages.hpp"

namespace ndarena::fuzz {
namespace {

using directory::editor;
using directory::tree_view;

std::string key_of(std::uint64_t n) {
    n %= 4096;
    switch (n % 4) {
        case 0:
            return "k" + std::to_string(1000 + n);
        case 1: {  // a long common prefix, as of paths
            std::string key(900, 'p');
            return key + std::to_string(n / 64) + "/" + std::to_string(n % 64);
        }
        case 2:
            return std::string(1, static_cast<char>(n / 4 % 256)) +
                   std::string(n / 1024, static_cast<char>(n / 4));
        default:
            return std::string(n / 4 + 1, static_cast<char>('a' + n / 4 % 3));
    }
}
std::string value_of(std::uint64_t n) {
    return std::string(n * 7 % (directory::max_value_bytes + 1), static_cast<char>(n));
}

// Operations on an editor and on a map. What was committed is read back by
// every way there is.
class session {
public:
    void run(input& in) {
        for (int i = 0; i < most_operations && !in.is_empty(); ++i) {
            operate(in);
        }
        source_.reads_left = source_.places_left = never;
        if (!changes_->is_broken()) {
            commit();
        }
        verify();
    }

private:
    static constexpr int most_operations = 60;
    static constexpr std::size_t most_keys = 1000;

    void operate(input& in) {
        switch (in.byte() % 12) {
            case 0:
            case 1:
                assign(in.number(2), in.byte());
                break;
            case 2:
                each_of_run(in, [&](std::uint64_t n) { return assign(n, n); });
                break;
            case 3:
                erase(in.number(2));
                break;
            case 4:
                each_of_run(in, [&](std::uint64_t n) { return erase(n); });
                break;
            case 5:
                look(in.number(2));
                break;
            case 6:
                scan(in.number(2), in.byte());
                break;
            case 7:
                commit();
                break;
            case 8:
                abort();
                break;
            case 9:
                source_.reads_left = in.byte() % 8;
                break;
            case 10:
                source_.places_left = in.byte() % 16;
                commit();
                break;
            default:
                verify();
                break;
        }
    }
    template <class F>
    void each_of_run(input& in, F&& f) {
        std::uint64_t n = in.number(2);
        const std::uint64_t step = in.byte();
        for (std::uint64_t left = in.byte(); left > 0 && f(n); --left) {
            n += step;
        }
    }

    // What a failure may leave: nothing changed, or an editor that says no.
    bool failed(errc code) {
        require(code == errc::os, "only the fault on order is met");
        source_.reads_left = never;
        if (changes_->is_broken()) {
            std::string value;
            require(!changes_->find("k", value) && !changes_->assign("k", "", nullptr) &&
                        !changes_->write([this] { return source_.place(); }),
                    "a broken editor stays broken");
            abort();
        }
        return false;
    }
    bool assign(std::uint64_t n, std::uint64_t what) {
        const std::string key = key_of(n);
        const std::string value = value_of(what);
        const auto present = model_.find(key);
        if (present == model_.end() && model_.size() >= most_keys) {
            return false;
        }
        std::string old = "untouched";
        const auto done = changes_->assign(key, value, &old);
        if (!done) {
            return failed(done.err().code);
        }
        require(*done == (present != model_.end()), "assign says whether it replaced");
        require(old == (*done ? present->second : "untouched"), "assign returns the old value");
        model_[key] = value;
        return true;
    }
    bool erase(std::uint64_t n) {
        const std::string key = key_of(n);
        const auto present = model_.find(key);
        std::string old = "untouched";
        const auto done = changes_->erase(key, &old);
        if (!done) {
            return failed(done.err().code);
        }
        require(*done == (present != model_.end()), "erase says whether it was there");
        require(old == (*done ? present->second : "untouched"), "erase returns the value");
        if (*done) {
            model_.erase(present);
        }
        return true;
    }
    void look(std::uint64_t n) {
        const std::string key = key_of(n);
        std::string value;
        const auto found = changes_->find(key, value);
        if (!found) {
            (void)failed(found.err().code);
            return;
        }
        const auto present = model_.find(key);
        require(*found == (present != model_.end()), "a key is found if it is there");
        require(!*found || value == present->second, "the value is the assigned one");
    }
    void scan(std::uint64_t n, std::uint64_t most) {
        const std::string from = key_of(n);
        auto at = model_.lower_bound(from);
        const auto done = changes_->scan(from, [&](std::string_view key, std::string_view value) {
            require(at != model_.end() && at->first == key && at->second == value,
                    "a scan meets what is there, in order");
            ++at;
            return most-- > 0;
        });
        if (!done) {
            (void)failed(done.err().code);
            return;
        }
        require(at == model_.end() || most == never, "a scan meets all");
        source_.reads_left = never;
        const auto count = changes_->count();
        require(count && *count == model_.size(), "the count is right");
    }

    void commit() {
        source_.reads_left = never;
        const auto before = source_.pages;
        const std::size_t announced = changes_->dirty_nodes();
        const auto root = changes_->write([this] { return source_.place(); });
        const bool enough = source_.places_left != 0 || bool(root);
        source_.places_left = never;
        if (!root) {
            require(!enough && root.err().code == errc::no_memory,
                    "only the fault on order is met");
            require(changes_->is_broken(), "a failed write breaks the editor");
            for (const auto& [offset, bytes] : before) {
                require(source_.pages[offset] == bytes, "no stored node has changed");
            }
            source_.put(before);
            abort();
            return;
        }
        require(source_.pages.size() == before.size() + announced, "blocks are as announced");
        for (const node_ref& gone : changes_->retired()) {
            source_.free(gone.offset);
        }
        root_ = *root;
        committed_ = model_;
        changes_.emplace(source_, id_, root_);
        verify();
    }
    void abort() {
        model_ = committed_;
        changes_.emplace(source_, id_, root_);
    }

    // The stored tree against the map of what was committed.
    void verify() {
        source_.reads_left = never;
        tree_view tree(source_, id_, root_);
        tree_view knowing(source_, id_, root_, &known_);
        std::set<std::uint64_t> reached;
        auto at = committed_.begin();
        const auto walked = tree.walk(
            [&](node_ref where) -> result<void> {
                require(reached.insert(where.offset).second, "no node is met twice");
                return {};
            },
            [&](std::string_view key, std::string_view value) -> result<void> {
                require(at != committed_.end() && at->first == key && at->second == value,
                        "what was committed is stored");
                ++at;
                return {};
            });
        require(bool(walked), "a stored tree is sound", walked ? "" : walked.err().message);
        require(at == committed_.end(), "all that was committed is stored");
        require(reached.size() == source_.pages.size(), "no node is left over");
        const auto count = tree.count();
        require(count && *count == committed_.size(), "the stored count is right");
        std::size_t i = 0;
        for (const auto& [key, value] : committed_) {
            if (i++ % 16 == 0) {
                std::string found;
                const auto there = knowing.find(key, found);
                require(there && *there && found == value, "every key is found");
            }
        }
    }

    node_pages source_;
    directory::identity id_ = fuzz_identity();
    directory::known_nodes known_;
    node_ref root_;
    model_map model_;      // with the changes of the transaction
    model_map committed_;  // without
    std::optional<editor> changes_{std::in_place, source_, id_, root_};
};

// Uses a tree of which nothing is certain. What a walk accepts is sound in
// every respect.
void use(node_pages& source, node_ref root, directory::known_nodes& known, const model_map& keys) {
    const directory::identity id = fuzz_identity();
    tree_view tree(source, id, root);
    tree_view knowing(source, id, root, &known);
    model_map seen;
    std::string last;
    const auto walked = tree.walk(nullptr, [&](std::string_view key, std::string_view value) {
        require(seen.empty() || last < key, "a walk is in order");
        last = key;
        seen.emplace(key, value);
        return result<void>();
    });
    std::size_t scanned = 0;
    const auto scan = tree.scan("", [&](std::string_view, std::string_view) {
        ++scanned;
        return true;
    });
    const auto count = tree.count();
    if (walked) {
        require(scan && scanned == seen.size(), "a scan meets what a walk meets");
        require(count && *count == seen.size(), "the count of a sound tree is right");
    }
    for (const auto& [key, ignored] : keys) {
        std::string value;
        std::string other;
        const auto found = tree.find(key, value);
        (void)knowing.find(key, other);
        if (walked) {
            const auto expected = seen.find(key);
            require(found && *found == (expected != seen.end()), "a sound tree is searched right");
            require(!*found || value == expected->second, "and has the value");
        }
    }
    editor changes(source, id, root);
    std::size_t i = 0;
    for (const auto& [key, ignored] : keys) {
        std::string old;
        const auto done =
            i++ % 3 == 0 ? changes.assign(key + "+", "new", &old) : changes.erase(key, &old);
        require(done || !walked, "a sound tree can be changed");
        if (changes.is_broken()) {
            return;
        }
    }
    (void)changes.count();
    const auto written = changes.write([&] { return source.place(); });
    require(written || !walked, "a sound tree can be written");
    if (walked) {
        const auto again = tree_view(source, id, *written).walk(nullptr, nullptr);
        require(bool(again), "and is sound thereafter", again ? "" : again.err().message);
    }
}

struct specimen {
    std::map<std::uint64_t, page> pages;
    node_ref root;
    model_map model;
};

// Low and wide, high and narrow, and of all sorts.
const specimen& specimen_of(std::uint64_t choice) {
    static const auto all = [] {
        std::array<specimen, 4> made;
        for (std::size_t kind = 0; kind < made.size(); ++kind) {
            node_pages source;
            editor changes(source, fuzz_identity(), {});
            specimen& s = made[kind];
            const std::size_t keys = std::array<std::size_t, 4>{110, 30, 40, 3}[kind];
            for (std::size_t i = 0; i < keys; ++i) {
                std::string key = kind == 0   ? key_of(4 * i)
                                  : kind == 1 ? key_of(4 * i * 17 % 1024 + 1)
                                              : key_of(i * 51);
                s.model[key] = value_of(i);
                require(bool(changes.assign(key, s.model[key], nullptr)), "a tree can be made");
            }
            const auto root = changes.write([&] { return source.place(); });
            require(bool(root), "a tree can be written");
            s.root = *root;
            s.pages = source.pages;
        }
        return made;
    }();
    return all[choice % all.size()];
}

void damage(input& in, std::uint64_t choice) {
    const specimen& sound = specimen_of(choice);
    node_pages source;
    source.put(sound.pages);
    directory::known_nodes known;
    if ((choice & 4U) != 0) {  // all nodes are known before they change
        tree_view knowing(source, fuzz_identity(), sound.root, &known);
        for (const auto& [key, value] : sound.model) {
            std::string found;
            const auto there = knowing.find(key, found);
            require(there && *there && found == value, "a sound tree is searched right");
        }
    }
    damaged_nodes(source).edit(in, (choice & 8U) == 0);
    use(source, sound.root, known, sound.model);
}

// A page that says what the input says, where it can be believed.
void parse_node(input& in) {
    node_pages source;
    page& bytes = source.pages[node_pages::first];
    directory::node_header h{};
    h.magic = directory::node_magic;
    h.uuid = fuzz_identity().uuid;
    h.offset = node_pages::first;
    h.level = static_cast<std::uint8_t>(in.byte());
    h.count = static_cast<std::uint16_t>(in.number(2));
    h.used = static_cast<std::uint16_t>(in.number(2));
    h.keys = in.number(1);
    bytes.fill(std::byte{0});
    directory::save(bytes.data(), h);
    std::memcpy(&bytes[directory::header_bytes], in.rest(),
                std::min<std::size_t>(in.left(), directory::body_bytes));
    directory::save(&bytes[directory::body_end], base::crc32c(bytes.data(), directory::body_end));
    directory::known_nodes known;
    use(source, {node_pages::first, 7}, known, {{"a", ""}, {"b", ""}, {"k1000", ""}});
}

void parse_value(input& in) {
    const std::string bytes(reinterpret_cast<const char*>(in.rest()), in.left());
    directory::entry e;
    directory::meta_block overflow;
    if (directory::decode_value(bytes, e, overflow)) {
        require(e.shape.size() <= directory::max_dimensions, "dimensions are few");
        require(overflow.nbytes <= directory::max_meta_bytes, "descriptions are short");
        directory::entry again;
        directory::meta_block other;
        require(directory::decode_value(
                    directory::encode_value(e, directory::encode_meta(e), overflow), again, other),
                "what was read can be written");
        require(again.shape == e.shape && again.descr == e.descr && again.attrs == e.attrs &&
                    again.offset == e.offset && again.nbytes == e.nbytes &&
                    other.offset == overflow.offset && other.crc == overflow.crc,
                "and comes back");
    }
    (void)directory::decode_meta(bytes, e);
}

void run(input in) {
    const std::uint64_t choice = in.byte();
    switch (choice % 8) {
        case 0:
        case 1:
        case 2:
            session().run(in);
            break;
        case 3:
            parse_node(in);
            break;
        case 4:
            parse_value(in);
            break;
        default:
            damage(in, choice / 8);
            break;
    }
}

}  // namespace
}  // namespace ndarena::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    ndarena::fuzz::run(ndarena::fuzz::input(data, size));
    return 0;
}
