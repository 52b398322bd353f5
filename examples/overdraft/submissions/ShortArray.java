import java.util.Scanner;

public class Main {
    public static void main(String[] args) {
        Scanner in = new Scanner(System.in);
        int days = in.nextInt();
        long[] balance = new long[8];
        for (int day = 1; day <= days; day++) {
            balance[day] = balance[day - 1] + in.nextInt();
            if (balance[day] < 0) {
                System.out.println("overdrawn " + day);
                return;
            }
        }
        System.out.println("solvent " + balance[days]);
    }
}
