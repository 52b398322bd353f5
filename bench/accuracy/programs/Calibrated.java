// Calibrated KIND AMOUNT: as calibrated.c, in Java; as calibrated.py it asks the kernel what its
// processes hold, and by its threads' schedstat what they used: the virtual machine's own
// figure counts in hundredths of a second. Started with a fixed number of the machine's own
// threads, since the time of one that has ended is not there any more.

import java.io.FileInputStream;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.stream.Stream;

public class Calibrated {
    private static final int TASKS = 2;
    private static final int PROCESSES = 2;
    private static final int PAGE = 4096;
    private static final long KERNEL_STACK = 16 * 1024;
    private static final Path REPORTS = Path.of("/tmp/reports");
    private static final ThreadMXBean CLOCKS = ManagementFactory.getThreadMXBean();
    private static final List<Object> held = new ArrayList<>();
    private static volatile int sink;

    private static void burn(long ns) {
        long end = CLOCKS.getCurrentThreadCpuTime() + ns;
        while (CLOCKS.getCurrentThreadCpuTime() < end)
            for (int i = 0; i < 20000; i++)
                sink = i;
    }

    private static void burnInKernel(long ns) throws IOException {
        byte[] buffer = new byte[1 << 16];
        try (FileInputStream zero = new FileInputStream("/dev/zero")) {
            long end = CLOCKS.getCurrentThreadCpuTime() + ns;
            while (CLOCKS.getCurrentThreadCpuTime() < end)
                zero.read(buffer);
        }
    }

    // They stay when they are done, so that their time can be read.
    private static void burnByThreads(long ns) throws InterruptedException {
        CountDownLatch done = new CountDownLatch(TASKS);
        for (int i = 0; i < TASKS; i++) {
            Thread thread = new Thread(() -> {
                burn(ns / TASKS);
                done.countDown();
                rest(Long.MAX_VALUE);
            });
            thread.setDaemon(true);
            thread.start();
        }
        done.await();
    }

    private static void rest(long ms) {
        try {
            Thread.sleep(ms);
        } catch (InterruptedException nobodyDoes) {
            throw new IllegalStateException(nobodyDoes);
        }
    }

    // The kernel brings a running thread's figure up to date at its ticks: so let all rest.
    private static long usedNs() throws IOException {
        rest(10);
        long sum = 0;
        try (Stream<Path> threads = Files.list(Path.of("/proc/self/task"))) {
            for (Path thread : (Iterable<Path>) threads::iterator)
                sum += Long.parseLong(Files.readString(thread.resolve("schedstat")).split(" ")[0]);
        }
        return sum;
    }

    private static Process again(String kind, long amount) throws IOException {
        return new ProcessBuilder(
                System.getProperty("java.home") + "/bin/java", "-XX:TieredStopAtLevel=1",
                "-XX:-UseDynamicNumberOfCompilerThreads", "-XX:+UseSerialGC",
                "-XX:PretenureSizeThreshold=1m", "-Xmx256m",
                "-cp", System.getProperty("java.class.path"), "Calibrated", kind,
                Long.toString(amount))
            .redirectOutput(ProcessBuilder.Redirect.DISCARD)
            .redirectError(ProcessBuilder.Redirect.INHERIT)
            .start();
    }

    private static void report(String kind) throws IOException {
        String own = REPORTS + "/" + ProcessHandle.current().pid();
        for (String end : List.of(".warm", ".done")) { // what it loads to report is its own too
            long number = kind.equals("hold") ? ownBytes() : usedNs();
            Files.writeString(Path.of(own), Long.toString(number));
            Files.move(Path.of(own), Path.of(own + end));
        }
    }

    // Wait for as many reports, each a file of its own, and add them up.
    private static long reports(String kind, long amount, int processes, int expected)
            throws IOException {
        Files.createDirectory(REPORTS);
        for (int i = 0; i < processes; i++)
            held.add(again(kind, amount));
        List<Path> done;
        do {
            rest(5);
            try (Stream<Path> files = Files.list(REPORTS)) {
                done = files.filter(path -> path.toString().endsWith(".done")).toList();
            }
        } while (done.size() < expected);
        long sum = 0;
        for (Path path : done)
            sum += Long.parseLong(Files.readString(path));
        return sum;
    }

    private static void touchHeap(int size) {
        byte[] memory = new byte[size];
        for (int at = 0; at < size; at += PAGE)
            memory[at] = 1;
        held.add(memory);
    }

    private static void touchShm(int size) throws IOException {
        RandomAccessFile file = new RandomAccessFile("/dev/shm/memory", "rw");
        MappedByteBuffer memory = file.getChannel().map(FileChannel.MapMode.READ_WRITE, 0, size);
        for (int at = 0; at < size; at += PAGE)
            memory.put(at, (byte) 1);
        held.add(memory);
    }

    private static long writeFile(int size) throws IOException {
        byte[] block = new byte[1 << 20];
        try (RandomAccessFile file = new RandomAccessFile("/tmp/file", "rw")) {
            for (int at = 0; at < size; at += block.length)
                file.write(block);
        }
        return size; // no process has it mapped
    }

    private static int descend(int depth) {
        return depth == 0 ? sink : descend(depth - 1) + 1;
    }

    // As deep as the stack goes: how many bytes a frame takes is the machine's secret.
    private static void touchStack(int size) throws InterruptedException {
        CountDownLatch done = new CountDownLatch(1);
        Thread thread = new Thread(null, () -> {
            try {
                sink = descend(Integer.MAX_VALUE);
            } catch (StackOverflowError deepest) {
                done.countDown();
            }
            rest(Long.MAX_VALUE);
        }, "deep", size);
        thread.setDaemon(true);
        thread.start();
        done.await();
    }

    private static long kernelsWord(String path, String name) throws IOException {
        for (String line : Files.readAllLines(Path.of(path)))
            if (line.startsWith(name + ":"))
                return Long.parseLong(line.replaceAll("\\D+", " ").strip().split(" ")[0]);
        throw new IOException(path + " has no " + name);
    }

    private static long ownBytes() throws IOException {
        String status = "/proc/self/status";
        String maps = "/proc/self/smaps_rollup";
        long kib = kernelsWord(maps, "Pss_Anon") + kernelsWord(maps, "Pss_Shmem")
            + kernelsWord(status, "VmHWM") - kernelsWord(status, "VmRSS")
            + kernelsWord(status, "VmPTE");
        return kib * 1024 + kernelsWord(status, "Threads") * KERNEL_STACK;
    }

    private static long use(String kind, long amount) throws Exception {
        int size = (int) amount << 20;
        long ns = amount * 1_000_000;
        switch (kind) {
            case "spin": burn(ns); return 0;
            case "threads": burnByThreads(ns); return 0;
            case "children": return reports("burn", ns / TASKS, TASKS, TASKS);
            case "orphans": return reports("leave", ns / TASKS, TASKS, 2 * TASKS);
            case "system": burnInKernel(ns); return 0;
            case "touch": touchHeap(size); return 0;
            case "tmpfs": return writeFile(size);
            case "shm": touchShm(size); return 0;
            case "stack": touchStack(size); return 0;
            case "many": return reports("hold", size / PROCESSES, PROCESSES, PROCESSES);
            default: throw new IllegalArgumentException(kind);
        }
    }

    // One of several processes, for `reports`.
    private static void help(String kind, long amount) throws IOException {
        switch (kind) {
            case "burn": burn(amount); report(kind); break;
            case "leave": again("burn", amount); report(kind); break;
            case "hold": touchHeap((int) amount); report(kind); rest(Long.MAX_VALUE); break;
        }
        Runtime.getRuntime().halt(0);
    }

    public static void main(String[] words) throws Exception {
        String kind = words[0];
        long amount = Long.parseLong(words[1]);
        if (List.of("burn", "leave", "hold").contains(kind))
            help(kind, amount);
        long others = use(kind, amount);
        boolean burns = List.of("spin", "threads", "children", "orphans", "system").contains(kind);
        String line = "";
        for (int look = 0; look < 2; look++) // what it loads to report is its own too
            line = burns ? "{\"cpu_ns\": " + (usedNs() + others) + "}"
                : "{\"bytes\": " + (amount << 20) + ", \"own_bytes\": " + (ownBytes() + others) + "}";
        System.out.println(line);
        Runtime.getRuntime().halt(0); // what the machine does at its end, nobody could report
    }
}
