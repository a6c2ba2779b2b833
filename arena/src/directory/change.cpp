// Changing names: what a transaction collects, and how it is written.
#include "directory/change.hpp"

#include <cstring>
#include <new>

namespace ndarena::directory {
namespace {

constexpr std::uint64_t patience_ms = 60000;

error no_memory(const std::string& path) {
    return {errc::no_memory, 0, "no memory for the change of names", path};
}

}  // namespace

result<void> store::require_change() const {
    const auto& seg = heap_.seg();
    if (!seg.writable()) {
        return error{errc::read_only, 0, "the arena was opened for reading (mode 'r')", seg.path()};
    }
    return heap_.require_usable();
}

result<void> store::begin(std::uint64_t timeout_ms) {
    if (auto ok = require_change(); !ok) {
        return ok;
    }
    if (in_transaction()) {
        return error{errc::invalid, 0, "this thread has a transaction on the arena already",
                     heap_.seg().path()};
    }
    const std::uint64_t now = platform::monotonic_milliseconds();
    if (!enter(timeout_ms > ~now ? ~std::uint64_t{0} : now + timeout_ms)) {
        return error{errc::lock_timeout, 0,
                     "another transaction on the arena has been under way for " +
                         std::to_string(timeout_ms / 1000) + " s",
                     heap_.seg().path()};
    }
    try {
        change_ = std::make_unique<change>(heap_, limit(), id());
    } catch (const std::bad_alloc&) {
        leave();
        return no_memory(heap_.seg().path());
    }
    return {};
}

void store::abort() noexcept {
    if (in_transaction()) {
        change_.reset();
        leave();
    }
}

result<void> store::commit() {
    if (!in_transaction()) {
        return error{errc::invalid, 0, "this thread has no transaction on the arena",
                     heap_.seg().path()};
    }
    result<void> done;
    try {
        done = write(*change_);
    } catch (const std::bad_alloc&) {
        done = no_memory(heap_.seg().path());
    }
    abort();  // what was committed is the names' now; the rest is nobody's
    if (done && !heap_.is_durable()) {
        (void)heap_.release_dropped();
    }
    return done;
}

// Runs f in this thread's transaction, or in one of its own.
template <class F>
auto store::in_change(F&& f) -> decltype(f(std::declval<change&>())) {
    if (in_transaction()) {
        try {
            return f(*change_);
        } catch (const std::bad_alloc&) {
            return no_memory(heap_.seg().path());
        }
    }
    if (auto begun = begin(patience_ms); !begun) {
        return begun.err();
    }
    auto done = [&]() -> decltype(f(*change_)) {
        try {
            return f(*change_);
        } catch (const std::bad_alloc&) {
            return no_memory(heap_.seg().path());
        }
    }();
    if (!done) {
        abort();
        return done;
    }
    if (auto ok = commit(); !ok) {
        return ok.err();
    }
    return done;
}

// Enters the block in which the entry's description lies, if it needs one.
result<std::string> store::place_value(change& t, entry& e) {
    const std::string meta = encode_meta(e);
    if (e.shape.size() > max_dimensions || meta.size() > max_meta_bytes) {
        return error{errc::invalid, 0,
                     "type, shape and attributes of an array take " +
                         base::human_size(meta.size()) + " together; " +
                         base::human_size(max_meta_bytes) + " is the most",
                     heap_.seg().path()};
    }
    meta_block overflow;
    if (!fits_in_node(meta)) {
        // At the start of its block, which nothing else says: see find_survivors.
        void* address = heap_.allocate(
            meta.size(), meta.size() < tlsf::page_block_threshold ? 0 : segment::format_page,
            false);
        heap::block_id id;
        std::uint64_t nbytes = 0;
        if (address == nullptr || !heap_.identify(address, id, nbytes)) {
            return error{errc::no_memory, 0, heap_.refusal(), heap_.seg().path()};
        }
        std::memcpy(address, meta.data(), meta.size());
        t.adds.emplace(id.offset, id.record);
        overflow = {id.offset, id.record, static_cast<std::uint32_t>(meta.size()),
                    base::crc32c(meta.data(), meta.size())};
    }
    return encode_value(e, meta, overflow);
}

// A name no longer holds the block: one that the transaction brought is given
// back, any other is dropped with the commit.
result<void> store::drop_block(change& t, std::uint64_t offset, std::uint32_t hint) {
    if (const auto added = t.adds.find(offset); added != t.adds.end()) {
        t.adds.erase(added);
        (void)heap_.deallocate(heap_.base() + offset);
        return {};
    }
    auto record = heap_.resolve_named(offset, hint);
    if (!record) {
        return record.err();
    }
    t.drops.push_back(*record);
    return {};
}

result<void> store::drop_value(change& t, std::string_view value) {
    entry e;
    meta_block overflow;
    if (!decode_value(value, e, overflow)) {
        return t.source.damaged("a name has a value of an unknown kind");
    }
    if (e.offset != 0) {
        if (auto ok = drop_block(t, e.offset, e.record); !ok) {
            return ok;
        }
    }
    return overflow.offset == 0 ? result<void>{} : drop_block(t, overflow.offset, overflow.record);
}

result<void> store::put(std::string_view name, entry e, const void* address, bool replace) {
    auto done = in_change([&](change& t) -> result<bool> {
        if (!replace) {
            std::string value;
            auto there = t.tree.find(name, value);
            if (!there) {
                return there;
            }
            if (*there) {
                return error{errc::exists, 0,
                             "there is an array named \"" + std::string(name) + "\" already",
                             heap_.seg().path()};
            }
        }
        e.offset = 0;
        if (address != nullptr) {
            heap::block_id id;
            std::uint64_t nbytes = 0;
            if (!heap_.identify(address, id, nbytes) || !heap_.retain(address)) {
                return error{errc::invalid, 0, "not a block of this arena", heap_.seg().path()};
            }
            t.adds.emplace(id.offset, id.record);
            e.offset = id.offset;
            e.record = id.record;
            e.colour = id.colour;
        }
        auto value = place_value(t, e);
        if (!value) {
            return value.err();
        }
        std::string old;
        auto replaced = t.tree.assign(name, *value, &old);
        if (!replaced || !*replaced) {
            return replaced;
        }
        if (auto ok = drop_value(t, old); !ok) {
            t.broken = true;
            return ok.err();
        }
        return true;
    });
    if (!done) {
        return done.err();
    }
    return {};
}

result<bool> store::erase(std::string_view name) {
    return in_change([&](change& t) -> result<bool> {
        std::string old;
        auto there = t.tree.erase(name, &old);
        if (!there || !*there) {
            return there;
        }
        if (auto ok = drop_value(t, old); !ok) {
            t.broken = true;
            return ok.err();
        }
        return true;
    });
}

result<bool> store::rename(std::string_view from, std::string_view to) {
    return in_change([&](change& t) -> result<bool> {
        std::string value;
        std::string other;
        auto there = t.tree.find(from, value);
        if (!there || !*there || from == to) {
            return there;
        }
        auto taken = t.tree.find(to, other);
        if (!taken) {
            return taken;
        }
        if (*taken) {
            return error{errc::exists, 0,
                         "there is an array named \"" + std::string(to) + "\" already",
                         heap_.seg().path()};
        }
        // The blocks are held by one name before and after.
        if (auto ok = t.tree.assign(to, value, nullptr); !ok) {
            return ok;
        }
        return t.tree.erase(from, nullptr);
    });
}

result<bool> store::set_attrs(std::string_view name, std::string_view attrs) {
    return in_change([&](change& t) -> result<bool> {
        std::string old;
        auto there = t.tree.find(name, old);
        if (!there || !*there) {
            return there;
        }
        entry e;
        if (auto ok = t.source.read_entry(old, e); !ok) {
            return ok.err();
        }
        e.attrs = attrs;
        auto value = place_value(t, e);
        if (!value) {
            return value.err();
        }
        if (auto ok = t.tree.assign(name, *value, nullptr); !ok) {
            return ok;
        }
        // The array's own block stays with the name.
        meta_block overflow;
        (void)decode_value(old, e, overflow);
        if (overflow.offset != 0) {
            if (auto ok = drop_block(t, overflow.offset, overflow.record); !ok) {
                t.broken = true;
                return ok.err();
            }
        }
        return true;
    });
}

// Nodes into blocks of their own, then the one step that makes them the
// directory. On failure the blocks are given back and nothing has happened.
result<void> store::write(change& t) {
    if (t.broken) {
        return error{errc::invalid, 0, "a change of this transaction failed halfway",
                     heap_.seg().path()};
    }
    if (!t.tree.changed()) {
        return {};
    }
    std::vector<std::pair<std::uint64_t, std::uint32_t>> nodes;
    void* ledger = nullptr;
    const auto give_back = [&] {
        for (const auto& [offset, record] : nodes) {
            (void)heap_.deallocate(heap_.base() + offset);
        }
        if (ledger != nullptr) {
            (void)heap_.deallocate(ledger);
        }
    };
    const std::size_t wanted = t.tree.dirty_nodes();
    nodes.reserve(wanted);
    std::vector<std::uint32_t> adds;
    std::vector<std::uint32_t> drops = t.drops;
    adds.reserve(wanted + t.adds.size());
    for (const node_ref& old : t.tree.retired()) {
        auto record = heap_.resolve_named(old.offset, old.record);
        if (!record) {
            return record.err();
        }
        drops.push_back(*record);
    }
    for (const auto& [offset, record] : t.adds) {
        adds.push_back(record);
    }
    // All blocks before the first byte: a refusal can still be mended by a flush,
    // which releases what dropped names held.
    for (const bool flushed : {false, true}) {
        while (nodes.size() < wanted) {
            void* address = heap_.allocate(node_bytes, segment::format_page, false);
            heap::block_id block;
            std::uint64_t nbytes = 0;
            if (address == nullptr || !heap_.identify(address, block, nbytes)) {
                break;
            }
            nodes.emplace_back(block.offset, block.record);
        }
        ledger = nodes.size() < wanted
                     ? nullptr
                     : heap_.allocate(heap::heap::ledger_bytes(wanted + adds.size(), drops.size()),
                                      0, false);
        if (ledger != nullptr || flushed || !heap_.flush()) {
            break;
        }
    }
    if (ledger == nullptr) {
        give_back();
        return error{errc::no_memory, 0, heap_.refusal(), heap_.seg().path()};
    }
    std::size_t next = 0;
    auto root = t.tree.write([&]() -> result<std::pair<node_ref, std::byte*>> {
        if (next == nodes.size()) {
            return no_memory(heap_.seg().path());
        }
        const auto [offset, record] = nodes[next++];
        adds.push_back(record);
        return std::pair<node_ref, std::byte*>{{offset, record}, heap_.base() + offset};
    });
    if (!root) {
        give_back();
        return root.err();
    }
    heap_.fill_ledger(ledger, adds, drops);
    auto done = heap_.commit_names(root->offset, root->record, ledger);
    give_back();  // the names hold them now, if they have been committed
    return done;
}

}  // namespace ndarena::directory
