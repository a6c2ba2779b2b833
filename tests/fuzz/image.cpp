// Fuzz target: the bytes of an arena, damaged, then opened and used as any
// program would. Whatever they are, the answer is an error or findings.
//
// The first byte says which sound image is damaged, how it is opened, which
// checksums are made to fit again, and whether the machine was started anew;
// edits follow (damaged_image.hpp). With 0xFF the rest is the whole file.
#include "directory/directory.hpp"

#include "damaged_image.hpp"
#include "places.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <vector>

namespace ndarena::fuzz {
namespace {

using directory::store;
using heap::block_id;
using heap::token;

using heap::heap;  // last: it hides the layer's name
using segment::open_mode;

constexpr std::uint64_t kib = 1024;
constexpr std::uint64_t capacity = 512 * kib;
constexpr std::uint32_t peer_slot = 9;

// One file for all images: their state is trusted only under the inode that
// they were made in.
class workshop {
public:
    workshop() {
        auto made = unnamed_arena::create(capacity);
        file_ = std::make_unique<memory_file>(std::move(made.file));
        geo_ = made.h->seg().geo();
        heap& h = *made.h;
        h.set_purge(-1, ~std::uint64_t{0});
        std::vector<void*> blocks;
        for (std::uint64_t i = 0; i < 60; ++i) {
            blocks.push_back(h.allocate(1 + i * i * 5, 0, false));
        }
        for (std::size_t i = 1; i < 30; i += 3) {  // messages, some of them read
            const auto sent = h.send(blocks[i], 1 + i % 2);
            block_id id;
            std::uint64_t nbytes = 0;
            require(sent && h.identify(blocks[i], id, nbytes), "blocks can be sent");
            require(i % 2 == 0 || h.attach(id, *sent, nbytes), "and attached");
        }
        void* large = h.allocate(100 * kib, 0, false);
        std::memset(large, 1, 100 * kib);
        for (std::size_t i = 0; i < blocks.size(); i += 3) {
            (void)h.deallocate(blocks[i]);
        }
        // Blocks of a process that has died; the last free waits for purging.
        (void)h.deallocate(large);
        images_[0] = snapshot();
        images_[1] = in_mid_operation(images_[0]);
        (void)h.trim();
        images_[2] = snapshot();
        require(h.check().empty(), "the images are sound");
        made.h.reset();
        images_[3] = snapshot();  // left in order
        add_names();
    }

    const std::string& image(std::size_t i) const { return images_[i % 4]; }
    const std::string& named_image(std::size_t i) const { return images_[4 + i % 2]; }
    // The nodes, arrays and descriptions of the named images.
    const std::vector<region>& named() const { return named_; }
    const segment::geometry& geo() const { return geo_; }
    const memory_file& file() const { return *file_; }

    void put(const std::string& bytes) const {
        require(::pwrite(file_->fd(), bytes.data(), bytes.size(), 0) ==
                        static_cast<ssize_t>(bytes.size()) &&
                    ::ftruncate(file_->fd(), static_cast<off_t>(bytes.size())) == 0,
                "the machine keeps files in memory");
    }

private:
    void add_names() {
        auto opened = directory::open_heap(in_file(file_->path(), open_mode::read_write));
        require(bool(opened), "a sound image can be opened");
        heap& h = **opened;
        store& names = store::of(h);
        for (std::uint64_t i = 0; i < 90; ++i) {
            directory::entry e;
            e.nbytes = i % 4 == 0 ? 1 + i * 7 : 0;
            e.shape = {static_cast<std::int64_t>(e.nbytes)};
            e.descr = "'|u1'";
            e.attrs = i % 30 == 0 ? std::string(500, ' ') : "";
            void* p = e.nbytes == 0 ? nullptr : h.allocate(e.nbytes, 0, false);
            require(bool(names.put("name/" + std::to_string(i), e, p, true)), "arrays get names");
            (void)h.deallocate(p);
        }
        require(bool(h.flush()), "names can be flushed");
        require(bool(names.erase("name/4")) && names.check().empty(), "the named image is sound");
        const segment::root_page* root = segment::current_root(h.seg().base(), h.seg().header());
        require(root != nullptr, "a flush writes a root");
        auto survivors = directory::find_survivors(h.seg(), *root);
        require(bool(survivors), "the stored names can be read");
        for (const auto& s : *survivors) {
            named_.push_back({s.offset, s.nbytes});
        }
        images_[4] = snapshot();  // one drop waits for a flush
        h.forgo_last_flush(true);
        opened->reset();
        images_[5] = snapshot();
    }
    std::string snapshot() const {
        std::string bytes(capacity, '\0');
        const auto got = ::pread(file_->fd(), bytes.data(), bytes.size(), 0);
        require(got > 0, "the machine reads files");
        bytes.resize(static_cast<std::size_t>(got));
        return bytes;
    }
    // The process has died before it committed: the log is to be played back.
    std::string in_mid_operation(const std::string& sound) const {
        std::string bytes = sound;
        std::vector<std::uint64_t> cache(segment::max_chunks);
        tlsf::block_table table(reinterpret_cast<std::byte*>(bytes.data()), bytes.size(), geo_,
                                cache.data());
        tlsf::allocator allocator(table, 0);
        for (std::uint32_t i = 1; i < table.control().record_bump; ++i) {
            if (table.at(i).state == tlsf::block_state::allocated) {
                allocator.release(i, table.at(i).size, 1);
                break;
            }
        }
        require(!table.undo().is_empty(), "an operation is under way");
        return bytes;
    }

    std::unique_ptr<memory_file> file_;
    segment::geometry geo_;
    std::array<std::string, 6> images_;
    std::vector<region> named_;
};

enum class way : std::uint8_t {
    deserted,  // a file that nobody has open
    shared,    // a file in which another process lives
    buffer,    // anonymous memory
    mapping,   // a buffer over the file
};

void look(heap& h) {
    (void)h.check();
    (void)h.stats();
    (void)h.blocks();
    (void)h.allocated_bytes();
}

// Messages about blocks, some of them read, by whoever may be the reader.
void send(heap& h, const std::vector<void*>& blocks) {
    for (std::size_t i = 0; i < blocks.size(); i += 2) {
        block_id id;
        std::uint64_t nbytes = 0;
        if (blocks[i] == nullptr || !h.identify(blocks[i], id, nbytes)) {
            continue;
        }
        const auto sent = h.send(blocks[i], 1 + i % 4);
        const auto ticket = sent ? *sent : token{static_cast<std::uint32_t>(i), i};
        for (std::size_t reader = 0; reader < i % 3; ++reader) {
            if (const auto got = h.attach(id, ticket, nbytes)) {
                std::memset(*got, 2, std::min<std::uint64_t>(nbytes, 64));
                (void)h.deallocate(*got);
            }
        }
    }
}

// Every byte that names lead to, and changes of all kinds.
void use_names(heap& h) {
    store& names = store::of(h);
    const bool writable = h.seg().writable();
    const bool sound = writable && h.check().empty() && names.check().empty();
    (void)names.count();
    const auto listed = names.list("", std::nullopt, 120);
    std::uint64_t sum = 0;
    for (const std::string& name : listed ? *listed : std::vector<std::string>{"name/8"}) {
        directory::entry e;
        bool found = false;
        directory::reader_pin pin;
        (void)names.find(name, e);
        const auto address = names.hold(name, e, found, pin);
        if (address && *address != nullptr) {
            const auto* bytes = static_cast<const unsigned char*>(*address);
            for (std::uint64_t at = 0; at < e.nbytes; ++at) {
                sum += bytes[at];
            }
            if (!pin) {
                (void)h.deallocate(*address);
            }
        }
    }
    static std::atomic<std::uint64_t> seen;  // the bytes were really read
    seen += sum;
    if (writable) {
        directory::entry e;
        e.nbytes = 300;
        e.shape = {300};
        e.descr = "'|u1'";
        void* p = h.allocate(e.nbytes, 0, false);
        if (p != nullptr) {
            (void)names.put("name/8", e, p, true);
            (void)names.put("new", e, p, true);
            (void)h.deallocate(p);
        }
        (void)names.set_attrs("name/12", std::string(400, 'a'));
        (void)names.rename("name/16", "other");
        for (int i = 20; i < 60; ++i) {
            (void)names.erase("name/" + std::to_string(i));
        }
        (void)h.flush();
        const auto findings = sound ? names.check() : std::vector<std::string>{};
        require(findings.empty(), "sound names stay sound",
                findings.empty() ? std::string{} : findings.front());
    }
}

// What a program does with an arena it has opened. Sound tables stay sound.
void use(heap& h) {
    const bool sound = h.check().empty();
    look(h);
    h.set_purge(0, 64 * kib);
    std::vector<void*> blocks;
    unsigned refusals = 0;  // each may have waited for others
    for (std::uint64_t i = 0; i < 40 && refusals < 8; ++i) {
        const std::uint64_t size = 1 + i * i * 30;
        blocks.push_back(h.allocate(size, i % 8 == 7 ? 4096 : 0, i % 2 == 0));
        if (blocks.back() != nullptr) {
            std::memset(blocks.back(), 1, size);
        } else {
            ++refusals;
        }
        if (i % 4 == 3 && blocks[i - 2] != nullptr) {
            (void)h.deallocate(std::exchange(blocks[i - 2], nullptr));
        }
    }
    for (void*& p : blocks) {
        if (p == nullptr || refusals >= 12) {
            continue;
        }
        void* moved = h.reallocate(p, 5000);
        p = moved != nullptr ? moved : p;
        refusals += moved == nullptr ? 1 : 0;
    }
    send(h, blocks);
    (void)h.trim();
    (void)h.reclaim();
    (void)h.reclaim(0);
    (void)h.grow(2 * capacity);
    look(h);
    for (void* p : blocks) {
        (void)h.deallocate(p);
    }
    (void)h.refusal();
    if (sound) {
        const auto findings = h.check();
        require(findings.empty(), "sound tables stay sound",
                findings.empty() ? std::string{} : findings.front());
    }
}

void open_and_use(const segment::segment_options& options) {
    auto opened = directory::open_heap(options);
    if (!opened) {
        require(!opened.err().message.empty(), "an error has a message");
        return;
    }
    use_names(**opened);
    if ((*opened)->seg().writable()) {
        use(**opened);
    } else {
        look(**opened);
    }
}

void open_file(const workshop& shop, bool with_peer) {
    platform::unique_fd peer;
    if (with_peer) {
        auto fd = platform::reopen(shop.file().fd(), true);
        require(bool(fd), "the machine reopens files");
        peer = std::move(*fd);
        require(platform::try_lock_byte(peer.get(), segment::lock_base + peer_slot) ==
                    platform::lock_answer::taken,
                "the machine locks files");
    }
    const std::string path = shop.file().path();
    open_and_use(in_file(path, open_mode::read));
    open_and_use(in_file(path, open_mode::read_write));
    open_and_use(in_file(path, open_mode::append));  // what the last one has left
}

void open_buffer(const workshop& shop, const std::string& bytes, bool of_file) {
    const std::uint64_t size = base::align_up(bytes.size() + 1, platform::page_size);
    if (of_file) {
        require(::ftruncate(shop.file().fd(), static_cast<off_t>(size)) == 0,
                "the machine keeps files in memory");
    }
    const pages memory(size, of_file ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS,
                       of_file ? shop.file().fd() : -1);
    if (!of_file) {
        std::memcpy(memory.data(), bytes.data(), bytes.size());
    }
    open_and_use(over(memory));
    auto afresh = over(memory);
    afresh.format_buffer = true;
    open_and_use(afresh);
}

void run(input in) {
    static const workshop shop;
    const std::uint64_t choice = in.byte();
    static std::string bytes;  // not made anew for every input
    const bool named = choice != 0xFF && (choice & 0x80U) != 0;
    damaged_image image(bytes, shop.geo(), named ? shop.named() : std::vector<region>{});
    if (choice == 0xFF) {
        bytes.assign(reinterpret_cast<const char*>(in.rest()), in.left());
    } else {
        bytes = named ? shop.named_image(choice >> 2) : shop.image(choice >> 2);
        image.edit(in);
        if ((choice & 0x10U) != 0) {
            image.sign_header();
            image.sign_nodes();
        }
        if ((choice & 0x20U) != 0) {
            image.sign_roots();
        }
        if (named && (choice & 0x40U) != 0) {
            image.reboot();
        }
    }
    const way how = static_cast<way>(choice % 4);
    if (how == way::shared) {
        image.let_go(peer_slot);
    }
    shop.put(bytes);
    switch (how) {
        case way::deserted:
        case way::shared:
            open_file(shop, how == way::shared);
            break;
        case way::buffer:
        case way::mapping:
            open_buffer(shop, bytes, how == way::mapping);
            break;
    }
}

}  // namespace
}  // namespace ndarena::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    ndarena::fuzz::run(ndarena::fuzz::input(data, size));
    return 0;
}
